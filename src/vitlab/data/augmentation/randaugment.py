"""RandAugment (Cubuk et al., 2020) as TensorFlow's code has it: sixteen operations, drawn and then applied.

Each layer draws one operation and applies it always. With m the magnitude on TensorFlow's scale:

    Rotate               30 m/10 degrees, either way
    ShearX, ShearY       0.3 m/10, either way
    TranslateX, -Y       100 m/10 pixels, either way
    Color, Contrast, Brightness, Sharpness    blend by 1.8 m/10 + 0.1; below 1 weakens, above 1 strengthens
    Posterize            keeps int(4 m/10) bits
    Solarize             inverts from int(256 m/10) on, modulo 256
    SolarizeAdd          adds int(110 m/10) to values below 128
    Cutout               greys out a square of 2 int(40 m/10) pixels
    AutoContrast, Equalize, Invert            take no magnitude

The lengths are in pixels whatever the image's size, and meant for images of about 224 x 224. Posterize and Solarize do
not grow with m (`vitlab.data.augmentation.point_tables` says what they do); the formulas go on unchanged above 10.
"""

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vitlab.data.augmentation import image_operations, point_tables
from vitlab.data.images import RGB

Name = Literal[
    "AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast",
    "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd",
]  # fmt: skip
OPERATIONS: tuple[Name, ...] = get_args(Name)

STRONGEST = 10.0  # TensorFlow's _MAX_LEVEL
# At the strongest: lengths and angles, either way; whole numbers.
LENGTHS: dict[Name, float] = {"Rotate": 30, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 100, "TranslateY": 100}
WHOLE_NUMBERS: dict[Name, int] = {"Posterize": 4, "Solarize": 256, "SolarizeAdd": 110, "Cutout": 40}
BLENDS = ("Color", "Contrast", "Brightness", "Sharpness")
EITHER_WAY = tuple(LENGTHS)


@dataclass(frozen=True)
class Operation:
    """One operation with all that it needs but the image.

    Attributes:
        name: one of `OPERATIONS`.
        argument: as the module's table says, with its sign; 0 where there is none.
        centre: Cutout's row and column.
    """

    name: Name
    argument: float = 0.0
    centre: tuple[int, int] = (0, 0)


def argument(name: Name, magnitude: float) -> float:
    """The argument of an operation at a magnitude, by the module's table, without a sign."""
    strength = magnitude / STRONGEST
    if name in BLENDS:
        return strength * 1.8 + 0.1
    if name in WHOLE_NUMBERS:
        return int(strength * WHOLE_NUMBERS[name])
    return strength * LENGTHS.get(name, 0.0)


def draw_operations(
    layers: int, magnitude: float, size: tuple[int, int], rng: np.random.Generator
) -> tuple[Operation, ...]:
    """Draws `layers` operations: for each its name, then its sign or its centre where it has one.

    Args:
        layers: how many.
        magnitude: on TensorFlow's scale, >= 0.
        size: height and width of the image that they are for.
        rng: the sample's own generator.
    """
    drawn = []
    for _ in range(layers):
        name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        strength = argument(name, magnitude)
        if name in EITHER_WAY and rng.random() < 0.5:
            strength = -strength
        centre = (int(rng.integers(size[0])), int(rng.integers(size[1]))) if name == "Cutout" else (0, 0)
        drawn.append(Operation(name, strength, centre))
    return tuple(drawn)


def apply_operation(image_HWC: RGB, operation: Operation) -> RGB:
    """The image after one operation: uint8 RGB of the same size, a new array or the one given."""
    height, width = image_HWC.shape[:2]
    match operation.name:
        case "Invert":
            return ~image_HWC
        case "Posterize":
            posterized_HWC: RGB = image_HWC & point_tables.posterize(int(operation.argument))[-1]
            return posterized_HWC
        case "Solarize":
            return image_operations.solarize(image_HWC, int(operation.argument))
        case "SolarizeAdd" | "Brightness" | "Contrast":
            return image_operations.look_up(image_HWC, value_table(operation, height * width))
        case "AutoContrast":
            return image_operations.autocontrast(image_HWC)
        case "Equalize":
            return image_operations.equalize(image_HWC)
        case "Color":
            return image_operations.colour(image_HWC, operation.argument)
        case "Sharpness":
            return image_operations.sharpness(image_HWC, operation.argument)
        case "Cutout":
            top, left, bottom, right = cutout_box(operation, height, width)
            cut_HWC = image_HWC.copy()
            cut_HWC[top:bottom, left:right] = image_operations.GREY
            return cut_HWC
        case _:
            return image_operations.affine(image_HWC, affine_matrix(operation, height, width))


def value_table(operation: Operation, pixels: int) -> point_tables.Table:
    """The table of an operation that changes every value by itself, whatever its image but for the number of pixels."""
    amount = operation.argument
    match operation.name:
        case "Invert":
            return point_tables.invert()
        case "Posterize":
            return point_tables.posterize(int(amount))
        case "Solarize":
            return point_tables.solarize(int(amount))
        case "SolarizeAdd":
            return point_tables.solarize_add(int(amount))
        case "Brightness":
            return point_tables.brightness(amount)
    assert operation.name == "Contrast"
    return point_tables.contrast(amount, pixels)


def cutout_box(operation: Operation, height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of the part of Cutout's square that lies in the image."""
    reach = int(operation.argument)
    row, column = operation.centre
    return max(row - reach, 0), max(column - reach, 0), min(row + reach, height), min(column + reach, width)


def affine_matrix(operation: Operation, height: int, width: int) -> NDArray[np.float32]:
    """(a, b, c, d, e, f): output pixel (x, y) shows input pixel (a x + b y + c, d x + e y + f), in float32.

    Shears and translations are about the upper left corner, rotations about the image's centre.
    """
    amount = np.float32(operation.argument)
    match operation.name:
        case "ShearX":
            return np.array((1, amount, 0, 0, 1, 0), np.float32)
        case "ShearY":
            return np.array((1, 0, 0, amount, 1, 0), np.float32)
        case "TranslateX":
            return np.array((1, 0, amount, 0, 1, 0), np.float32)
        case "TranslateY":
            return np.array((1, 0, 0, 0, 1, amount), np.float32)
    assert operation.name == "Rotate"
    radians = float(amount * np.float32(pi / 180))
    cosine, sine = np.float32(cos(radians)), np.float32(sin(radians))
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    across = (right - (cosine * right - sine * bottom)) / np.float32(2)
    down = (bottom - (sine * right + cosine * bottom)) / np.float32(2)
    return np.array((cosine, -sine, across, sine, cosine, down), np.float32)
