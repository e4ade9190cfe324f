"""Training augmentation of one image: crop, mirroring, RandAugment, random erasing; drawn here, applied here or later.

Every draw comes from the generator that is passed in. Drawing and applying are separate so that the draws can be made
on the host, sample by sample, and what follows the crop applied on the device, batch by batch (`device_augment`), with
the same pixels.
"""

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from vitlab.data.augmentation.randaugment import Operation, apply_operation, draw_operations
from vitlab.data.decoding import largest_shrink
from vitlab.data.images import RGB, Picture
from vitlab.data.resize import bilinear, mirror, prepare
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

CROP_ATTEMPTS = 100  # TensorFlow's default; after as many misses the entire image is taken

# Random erasing (Zhong et al., 2020): the paper's s_l, s_h and r_1, r_2 of all its experiments.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASING_ATTEMPTS = 100  # the paper has no limit; about every fourth attempt fits


@dataclass(frozen=True, eq=False)
class Erasure:
    """A rectangle and what is put there.

    Attributes:
        top, left: its first row and column.
        noise_HWC: uint8 of the rectangle's size.
    """

    top: int
    left: int
    noise_HWC: RGB


@dataclass(frozen=True, eq=False)
class Variation:
    """Everything that was drawn for one image after its crop, in the order of its use."""

    flip: bool = False
    operations: tuple[Operation, ...] = ()
    erasure: Erasure | None = None


def crop_and_draw(
    picture: Picture, augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator
) -> tuple[RGB, Variation]:
    """A training image cropped to the model's input size, and what is still to be done to it, drawn but not applied.

    These are the paper's sections 4.1 and B.1.1 and its appendix B.1. `vary` applies the rest to the image,
    `vary_batch` of `device_augment` to a batch on the device, with equal pixels.

    Args:
        picture: of any size; it is not written to.
        augmentation: the crop, and what follows it.
        preprocessing: the model's; gives the size, and the resize of crops "none" and "pad".
        rng: the sample's own generator; draws are made in a fixed order.

    Returns:
        (image_HWC, variation): uint8 RGB of `preprocessing.size`, and the draws.
    """
    if augmentation.crop == "inception":
        cropped_HWC = inception_crop(picture, augmentation, preprocessing.size, rng)
    elif augmentation.crop == "random":
        cropped_HWC = random_crop(picture.pixels(), augmentation.enlarge, preprocessing, rng)
    else:
        cropped_HWC = prepare(picture.pixels(), preprocessing)
        if augmentation.crop == "pad" and augmentation.pad > 0:
            cropped_HWC = pad_crop(cropped_HWC, augmentation.pad, rng)
    return cropped_HWC, draw_variation(augmentation, preprocessing.size, rng)


def crop_box(
    height: int, width: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws an Inception crop the way TensorFlow's `sample_distorted_bounding_box` does.

    Up to 100 times: draw the aspect ratio width / height uniformly (torchvision draws its logarithm); among
    the integer heights whose box has a permitted area and fits into the image, draw one uniformly (torchvision
    draws the area uniformly, which gives larger boxes less often); accept if the rounded box still has a
    permitted area and fits. Otherwise the entire image. The place is uniform over all places where the box
    fits.

    Returns:
        (top, left, height, width) in pixels.
    """
    smallest, largest = (share * height * width for share in augmentation.area)
    low, high = augmentation.aspect
    for _ in range(CROP_ATTEMPTS):
        aspect = low + (high - low) * rng.random()
        lowest = round(sqrt(smallest / aspect))
        highest = min(round(sqrt(largest / aspect)), height)
        if round(highest * aspect) > width:
            highest = int((width + 0.5 - 1e-7) / aspect)
        box_height = max(1, int(rng.integers(lowest, highest + 1)) if highest > lowest else highest)
        box_width = round(box_height * aspect)
        if smallest <= box_height * box_width <= largest and box_width <= width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return 0, 0, height, width


def inception_crop(
    picture: Picture, augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator
) -> RGB:
    """Cuts a random box and resizes it to `size`, bilinearly without antialiasing, as the original code.

    A JPEG whose box is at least twice `size` is decoded at 1/2, 1/4 or 1/8 of its resolution, as far as the box still
    holds `size` pixels: that costs less, and does the averaging that the plain bilinear resize leaves out. The box's
    edges then move outwards to the pixel grid of the smaller image.
    """
    top, left, height, width = crop_box(picture.height, picture.width, augmentation, rng)
    shrink = largest_shrink(height, width, size) if picture.shrinkable else 1
    rows = slice(top // shrink, -(-(top + height) // shrink))
    columns = slice(left // shrink, -(-(left + width) // shrink))
    return bilinear(picture.pixels(shrink)[rows, columns], size)


def random_crop(image_HWC: RGB, enlarge: float, preprocessing: Preprocessing, rng: np.random.Generator) -> RGB:
    """Resizes to `enlarge` times the model's input, whatever the proportions, and cuts the input out anywhere (BiT)."""
    height, width = preprocessing.size
    larger = round(height * enlarge), round(width * enlarge)
    enlarged_HWC = prepare(image_HWC, replace(preprocessing, size=larger, resize="square", crop=1.0))
    top = int(rng.integers(larger[0] - height + 1))
    left = int(rng.integers(larger[1] - width + 1))
    return enlarged_HWC[top : top + height, left : left + width]


def pad_crop(image_HWC: RGB, pad: int, rng: np.random.Generator) -> RGB:
    """Adds `pad` black pixels on every side and cuts the original size out at a random place."""
    height, width, channels = image_HWC.shape
    top, left = draw_place(pad, rng)
    padded_HWC = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.uint8)
    padded_HWC[pad : pad + height, pad : pad + width] = image_HWC
    return padded_HWC[top : top + height, left : left + width]


def draw_place(pad: int, rng: np.random.Generator) -> tuple[int, int]:
    """Where a crop of an image with `pad` more pixels on every side begins: (top, left)."""
    # One by one: the same numbers as two at once, in half the time.
    return int(rng.integers(2 * pad + 1)), int(rng.integers(2 * pad + 1))


def draw_variation(augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator) -> Variation:
    """Draws an image's variation: flip, RandAugment, erasing; what is switched off draws nothing.

    Args:
        augmentation: the recipe's.
        size: height and width of the cropped image.
        rng: the sample's own generator, after the crop's draws.
    """
    flip = draw_flip(augmentation, rng)
    operations = draw_operations(augmentation.randaugment_layers, augmentation.randaugment_magnitude, size, rng)
    return Variation(flip, operations, draw_erasure(augmentation.erase, size, rng))


def draw_flip(augmentation: Augmentation, rng: np.random.Generator) -> bool:
    """Whether an image is mirrored: every second one, where images are mirrored at all."""
    return augmentation.flip and bool(rng.random() < 0.5)


def vary(image_HWC: RGB, variation: Variation) -> RGB:
    """The cropped image after its variation: uint8 RGB of the same size."""
    if variation.flip:
        image_HWC = mirror(image_HWC)
    for operation in variation.operations:
        image_HWC = apply_operation(image_HWC, operation)
    return image_HWC if variation.erasure is None else erase(image_HWC, variation.erasure)


def draw_erasure(probability: float, size: tuple[int, int], rng: np.random.Generator) -> Erasure | None:
    """Draws whether an image is erased, where, and the noise (Algorithm 1 of the paper).

    Repeatedly: the area is uniform in 2 .. 40 % of the image's, height / width uniform in 0.3 .. 3.33, the upper left
    corner uniform over the image; the first rectangle that lies within the image is taken. Sides are rounded, and are
    1 pixel at least. Every value of the noise is uniform over 0 .. 255.

    Args:
        probability: of erasing, 0 to 1; at 0 nothing is drawn.
        size: height and width of the image.
        rng: the sample's own generator.

    Returns:
        None where the image is not changed, or where no rectangle fits (images of a pixel or two).
    """
    if probability == 0 or rng.random() >= probability:
        return None
    height, width = size
    for _ in range(ERASING_ATTEMPTS):
        shares = rng.random(4)
        area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * shares[0]) * height * width
        aspect = ERASED_ASPECT[0] + (ERASED_ASPECT[1] - ERASED_ASPECT[0]) * shares[1]
        erased_height = max(1, round(sqrt(area * aspect)))
        erased_width = max(1, round(sqrt(area / aspect)))
        top, left = int(height * shares[2]), int(width * shares[3])
        if top + erased_height <= height and left + erased_width <= width:
            noise_HWC = rng.integers(256, size=(erased_height, erased_width, 3), dtype=np.uint8)
            return Erasure(top, left, noise_HWC)
    return None


def erase(image_HWC: RGB, erasure: Erasure) -> RGB:
    """A copy of the image with the noise in its place."""
    height, width = erasure.noise_HWC.shape[:2]
    erased_HWC = image_HWC.copy()
    erased_HWC[erasure.top : erasure.top + height, erasure.left : erasure.left + width] = erasure.noise_HWC
    return erased_HWC
