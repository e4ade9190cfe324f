"""RandAugment's operations against TensorFlow's formulas, written out pixel by pixel; and how they are drawn."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data.pictures import augment
from vitlab.data.augmentation.randaugment import OPERATIONS, Operation, apply_operation, argument, draw_operations
from vitlab.data.order import SampleGenerators
from vitlab.recipes.augmentation import AUGREG, Augmentation, augreg
from vitlab.recipes.preprocessing import Preprocessing

SHAPES = [(9, 13), (1, 1), (2, 5), (16, 16), (40, 3)]
MAGNITUDES = [0, 1.7, 5, 9, 10, 15, 20]
SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def image_of(shape, seed=0):
    """Noise, with flat parts and with both ends of the range."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    image[: shape[0] // 3] = rng.integers(0, 256, 3)
    image[-1, -1] = 255
    return image


def clipped(value):
    """TensorFlow: clip to 0 .. 255, then a cast, which cuts the fraction off."""
    return int(min(max(value, 0), 255))


def blended(degenerate, value, factor):
    start = np.float32(degenerate)
    return clipped(start + np.float32(factor) * (np.float32(value) - start))


def per_value(image, rule):
    return np.array([[[rule(int(v)) for v in pixel] for pixel in row] for row in image], np.uint8)


def grey_of(pixel):
    r, g, b = (int(v) for v in pixel)
    weighted = Fraction(2989, 10000) * r + Fraction(5870, 10000) * g + Fraction(1140, 10000) * b
    return int(weighted / 255 * Fraction(511, 2))


def expected_colour(image, factor):
    return np.array([[[blended(grey_of(p), v, factor) for v in p] for p in row] for row in image], np.uint8)


def expected_sharpness(image, factor):
    result = image.copy()
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            for c in range(3):
                total = sum(
                    Fraction(5 if (dy, dx) == (0, 0) else 1, 13) * int(image[y + dy, x + dx, c])
                    for dy in (-1, 0, 1)
                    for dx in (-1, 0, 1)
                )
                result[y, x, c] = blended(int(total), image[y, x, c], factor)
    return result


def expected_autocontrast(image):
    result = image.copy()
    for c in range(3):
        low, high = np.float32(image[..., c].min()), np.float32(image[..., c].max())
        if high > low:
            scale = np.float32(255) / (high - low)
            for y in range(image.shape[0]):
                for x in range(image.shape[1]):
                    result[y, x, c] = clipped(np.float32(image[y, x, c]) * scale + -low * scale)
    return result


def half_away(value):
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def expected_affine(image, matrix):
    """ImageProjectiveTransform with nearest neighbour in float32, and grey where it reads outside."""
    height, width = image.shape[:2]
    a, b, c, d, e, f = (np.float32(number) for number in matrix)
    result = np.full_like(image, 128)
    for y in range(height):
        for x in range(width):
            from_x = half_away(float(a * np.float32(x) + b * np.float32(y) + c))
            from_y = half_away(float(d * np.float32(x) + e * np.float32(y) + f))
            if 0 <= from_x < width and 0 <= from_y < height:
                result[y, x] = image[from_y, from_x]
    return result


def expected_cutout(image, reach, centre):
    result = image.copy()
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if centre[0] - reach <= y < centre[0] + reach and centre[1] - reach <= x < centre[1] + reach:
                result[y, x] = 128
    return result


def expected(name, image, magnitude, sign, centre):
    height, width = image.shape[:2]
    m = magnitude / 10
    bits = int(m * 4)
    keep = 256 - 2 ** min(8 - bits, 7)  # the mask of the highest bits; TensorFlow shifts 7 places at most
    threshold = int(m * 256) % 256
    factor = m * 1.8 + 0.1
    match name:
        case "Invert":
            return per_value(image, lambda v: 255 - v)
        case "Posterize":
            return per_value(image, lambda v: v & keep)
        case "Solarize":
            return per_value(image, lambda v: v if v < threshold else 255 - v)
        case "SolarizeAdd":
            return per_value(image, lambda v: min(v + int(m * 110), 255) if v < 128 else v)
        case "Brightness":
            return per_value(image, lambda v: blended(0, v, factor))
        case "Contrast":
            return per_value(image, lambda v: blended(int(min(height * width / 256, 255)), v, factor))
        case "Color":
            return expected_colour(image, factor)
        case "Sharpness":
            return expected_sharpness(image, factor)
        case "AutoContrast":
            return expected_autocontrast(image)
        case "Equalize":
            return np.asarray(ImageOps.equalize(Image.fromarray(image)))
        case "Cutout":
            return expected_cutout(image, int(m * 40), centre)
        case "ShearX":
            return expected_affine(image, (1, sign * m * 0.3, 0, 0, 1, 0))
        case "ShearY":
            return expected_affine(image, (1, 0, 0, sign * m * 0.3, 1, 0))
        case "TranslateX":
            return expected_affine(image, (1, 0, sign * m * 100, 0, 1, 0))
        case "TranslateY":
            return expected_affine(image, (1, 0, 0, 0, 1, sign * m * 100))
    raise AssertionError(name)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "Rotate"])
def test_an_operation_is_tensorflows(name, magnitude, shape):
    image = image_of(shape)
    before = image.copy()
    centre = (shape[0] // 2, shape[1] - 1)
    for sign in (1, -1) if name in SIGNED else (1,):
        operation = Operation(name, sign * argument(name, magnitude), centre)
        found = apply_operation(image, operation)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected(name, image, magnitude, sign, centre))
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY"])
@pytest.mark.parametrize("magnitude", [0.05, 0.13, 0.35, 0.4, 2.5, 10])
def test_moves_by_parts_of_a_pixel_round_as_tensorflow(name, magnitude):
    """Translations of 0.5, 1.3, 3.5, 4 pixels; at 10, shears meet exact halves in every tenth row."""
    image = image_of((30, 31))
    for sign in (1, -1):
        found = apply_operation(image, Operation(name, sign * argument(name, magnitude)))
        np.testing.assert_array_equal(found, expected(name, image, magnitude, sign, None))


@pytest.mark.parametrize("shape", [(9, 13), (14, 14), (2, 5), (1, 1)])
@pytest.mark.parametrize("degrees", [-60, -30, -7.5, 0, 3, 27, 30, 45])
def test_rotation_is_about_the_centre(shape, degrees):
    """In float64; where the exact place is within 0.0001 of the middle between two pixels, either one is right."""
    image = image_of(shape)
    found = apply_operation(image, Operation("Rotate", degrees))
    height, width = shape
    angle = math.radians(degrees)
    for y in range(height):
        for x in range(width):
            right, down = x - (width - 1) / 2, y - (height - 1) / 2
            from_x = math.cos(angle) * right - math.sin(angle) * down + (width - 1) / 2
            from_y = math.sin(angle) * right + math.cos(angle) * down + (height - 1) / 2
            allowed = set()
            for near_x in (from_x - 1e-4, from_x + 1e-4):
                for near_y in (from_y - 1e-4, from_y + 1e-4):
                    px, py = half_away(near_x), half_away(near_y)
                    allowed.add(tuple(image[py, px]) if 0 <= px < width and 0 <= py < height else (128, 128, 128))
            assert tuple(found[y, x]) in allowed


def test_arguments_at_ten_are_tensorflows():
    at_ten = {"Rotate": 30, "Posterize": 4, "Solarize": 256, "SolarizeAdd": 110, "Color": 1.9, "Contrast": 1.9,
              "Brightness": 1.9, "Sharpness": 1.9, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 100,
              "TranslateY": 100, "Cutout": 40, "AutoContrast": 0, "Equalize": 0, "Invert": 0}  # fmt: skip
    assert set(at_ten) == set(OPERATIONS)
    assert len(OPERATIONS) == 16
    for name, value in at_ten.items():
        assert argument(name, 10) == pytest.approx(value)
        assert argument(name, 15) == pytest.approx(1.5 * value - (0.05 if value == 1.9 else 0))


def test_what_leaves_an_image_alone():
    image = image_of((8, 8))
    same = [
        *((name, 5) for name in ("Color", "Contrast", "Brightness", "Sharpness")),  # a blend by 1
        *((name, 0) for name in (*SIGNED, "Cutout", "SolarizeAdd")),
        ("Posterize", 20), ("Posterize", 30),
    ]  # fmt: skip
    for name, magnitude in same:
        found = apply_operation(image, Operation(name, argument(name, magnitude), (3, 3)))
        np.testing.assert_array_equal(found, image, err_msg=name)
    flat = np.full((8, 8, 3), 77, np.uint8)
    for name in ("AutoContrast", "Equalize", "Color", "Sharpness"):
        np.testing.assert_array_equal(apply_operation(flat, Operation(name, argument(name, 9))), flat, err_msg=name)


@pytest.mark.parametrize(
    ("height", "width", "grey"),
    [(224, 224, 196), (51, 30, 5), (16, 16, 1), (15, 17, 0), (260, 256, 255), (384, 384, 255)],
)
def test_contrasts_grey_is_the_number_of_pixels(height, width, grey):
    """Known of TensorFlow's code: what was meant as the mean grey is the number of pixels / 256, at most 255."""
    image = np.zeros((height, width, 3), np.uint8)
    found = apply_operation(image, Operation("Contrast", 0.1))
    assert (found == clipped(np.float32(grey) - np.float32(0.1) * np.float32(grey))).all()


def test_solarize_at_10_and_20_inverts_and_at_15_halves():
    image = image_of((8, 8))
    for magnitude in (0, 10, 20):
        found = apply_operation(image, Operation("Solarize", argument("Solarize", magnitude)))
        np.testing.assert_array_equal(found, 255 - image)
    found = apply_operation(image, Operation("Solarize", argument("Solarize", 15)))
    np.testing.assert_array_equal(found, np.where(image < 128, image, 255 - image))


def test_equalize_and_autocontrast_of_photos_agree_with_pillow(photo):
    """Pillow equalises by the same whole numbers; its autocontrast rounds a float64 down."""
    for part in (photo[:50, :60], photo[100:300, 200:230]):
        image = Image.fromarray(part)
        found = apply_operation(part, Operation("Equalize"))
        np.testing.assert_array_equal(found, np.asarray(ImageOps.equalize(image)))
        found = apply_operation(part, Operation("AutoContrast"))
        assert abs(found.astype(int) - np.asarray(ImageOps.autocontrast(image))).max() <= 1


@pytest.mark.parametrize("name", ["Color", "Sharpness", "Cutout", "TranslateX", "TranslateY", "ShearX", "ShearY"])
def test_large_images_are_worked_on_block_by_block_without_seams(name):
    """A wide image has many blocks; the upper left of the result depends on the upper left of the image alone."""
    image = image_of((70, 900))
    operation = Operation(name, argument(name, 9), (10, 10))
    if name.startswith("Translate"):
        operation = Operation(name, -3.25)
    if name.startswith("Shear"):
        operation = Operation(name, -0.2)
    whole, part = apply_operation(image, operation), apply_operation(image[:, :60].copy(), operation)
    np.testing.assert_array_equal(whole[:69, :59], part[:69, :59])


def test_operations_are_drawn_uniformly_and_both_ways():
    size = (20, 30)
    drawn = [draw_operations(3, 10, size, SampleGenerators(5).of(0, index)) for index in range(4000)]
    for layer in range(3):
        counts = np.array([sum(operations[layer].name == name for operations in drawn) for name in OPERATIONS])
        assert ((counts - 250) ** 2 / 250).sum() < 15 + 6 * np.sqrt(30)
    flat = [operation for operations in drawn for operation in operations]
    for name in OPERATIONS:
        found = [operation.argument for operation in flat if operation.name == name]
        assert set(map(abs, found)) == {abs(argument(name, 10))}
        if name in SIGNED:
            assert abs(sum(value > 0 for value in found) - len(found) / 2) < 4 * np.sqrt(len(found) / 4)
        else:
            assert min(found) >= 0
    turned = [operation.argument > 0 for operation in flat if operation.name in SIGNED]
    assert abs(sum(turned) - len(turned) / 2) < 4 * np.sqrt(len(turned) / 4)
    centres = np.array([operation.centre for operation in flat if operation.name == "Cutout"])
    for axis in (0, 1):
        assert set(centres[:, axis]) == set(range(size[axis]))
    pairs = {(operations[0].name, operations[1].name) for operations in drawn}
    assert len(pairs) == 256  # layers are independent, and may repeat


@given(st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_draws_repeat_themselves(seed, index):
    first, second = (draw_operations(2, 9, (32, 32), SampleGenerators(seed).of(1, index)) for _ in range(2))
    assert first == second


def test_augment_applies_crop_flip_then_the_operations(photo):
    size = Preprocessing(size=(32, 32))
    rules = Augmentation(crop="inception", randaugment_layers=2, randaugment_magnitude=9)
    plain = Augmentation(crop="inception")
    for index in range(40):
        rng = SampleGenerators(1).of(0, index)
        expected_image = augment(photo, plain, size, rng)  # draws crop and flip, and no more
        for operation in draw_operations(2, 9, (32, 32), rng):
            expected_image = apply_operation(expected_image, operation)
        found = augment(photo, rules, size, SampleGenerators(1).of(0, index))
        np.testing.assert_array_equal(found, expected_image)


def test_augreg_has_the_seven_of_the_paper():
    table = {
        "none": (0, 0, 0), "light1": (2, 0, 0), "light2": (2, 10, 0.2), "medium1": (2, 15, 0.2),
        "medium2": (2, 15, 0.5), "strong1": (2, 20, 0.5), "strong2": (2, 20, 0.8),
    }  # fmt: skip
    assert set(AUGREG) == set(table)
    for name, values in table.items():
        found = augreg(name)
        assert (found.randaugment_layers, found.randaugment_magnitude, found.mixup) == values
        assert (found.crop, found.flip, found.cutmix, found.erase) == ("inception", True, 0, 0)
    assert augreg("light2", Augmentation(flip=False)) == Augmentation(
        flip=False, randaugment_layers=2, randaugment_magnitude=10, mixup=0.2
    )
