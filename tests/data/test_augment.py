"""Laws of the training augmentation, and its crops against the distributions they are drawn from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.pictures import augment, encode
from vitlab.data.augmentation.augment import crop_box, inception_crop, pad_crop
from vitlab.data.images import as_picture, open_picture
from vitlab.data.order import SampleGenerators
from vitlab.data.resize import bilinear, prepare
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

sides = st.integers(1, 400)


def rngs(count):
    return (SampleGenerators(1).of(0, index) for index in range(count))


@given(sides, sides, st.integers(0, 2**32))
def test_a_crop_keeps_to_its_ranges(height, width, seed):
    rules = Augmentation(crop="inception", area=(0.2, 0.8), aspect=(0.75, 4 / 3))
    top, left, box_height, box_width = crop_box(height, width, rules, SampleGenerators(seed).of(0, 0))
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    if (box_height, box_width) != (height, width):
        assert 0.2 * height * width <= box_height * box_width <= 0.8 * height * width
        assert abs(box_width - box_height * 0.75) <= 0.5 or box_width >= box_height * 0.75
        assert abs(box_width - box_height * 4 / 3) <= 0.5 or box_width <= box_height * 4 / 3


def test_aspects_and_heights_are_uniform_as_tensorflow_draws_them():
    """In an image so large that no draw is turned down: one draw of TensorFlow's rule, by hand."""
    rules = Augmentation(crop="inception", area=(0.05, 0.1), aspect=(0.75, 4 / 3))
    side = 4000
    boxes = np.array([crop_box(side, side, rules, rng)[2:] for rng in rngs(4000)]) / side
    height, aspect = boxes[:, 0], boxes[:, 1] / boxes[:, 0]
    lowest, highest = np.sqrt(0.05 / aspect), np.sqrt(0.1 / aspect)
    for uniform in ((aspect - 0.75) / (4 / 3 - 0.75), (height - lowest) / (highest - lowest)):
        ranks = np.sort(uniform)
        distance = abs(ranks - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 1.95 / np.sqrt(4000)  # Kolmogorov-Smirnov at 0.1 %


def test_the_paper_sees_from_a_twentieth_to_the_whole():
    rules = Augmentation(crop="inception")
    areas = np.array([np.prod(crop_box(500, 375, rules, rng)[2:]) for rng in rngs(3000)]) / (500 * 375)
    assert areas.min() < 0.06
    assert areas.max() > 0.95


def test_crops_stand_everywhere():
    rules = Augmentation(crop="inception", area=(0.25, 0.25), aspect=(1, 1))
    places = np.array([crop_box(8, 8, rules, rng) for rng in rngs(4000)])
    assert (places[:, 2:] == 4).all()
    counts = np.bincount(places[:, 0] * 5 + places[:, 1], minlength=25)
    expected = 4000 / 25
    assert ((counts - expected) ** 2 / expected).sum() < 24 + 6 * np.sqrt(48)


def test_where_no_box_fits_the_whole_image_is_taken():
    rules = Augmentation(crop="inception", area=(0.5, 1), aspect=(0.75, 4 / 3))
    assert crop_box(2, 400, rules, SampleGenerators(0).of(0, 0)) == (0, 0, 2, 400)


def test_the_crops_resize_is_bilinear_without_antialiasing(photo):
    whole = Augmentation(crop="inception", area=(1, 1), aspect=(1, 1))
    square = np.ascontiguousarray(photo[:400, :400])
    for size in ((224, 224), (96, 96), (600, 500)):
        found = inception_crop(as_picture(square), whole, size, SampleGenerators(0).of(0, 0))
        numbers = torch.from_numpy(square).permute(2, 0, 1)[None].double()
        expected = torch.nn.functional.interpolate(numbers, size=size, mode="bilinear", align_corners=False)
        assert abs(found - expected[0].permute(1, 2, 0).numpy()).max() <= 1.01


def test_pad_crop_moves_the_image_over_black():
    image = np.arange(1, 28, dtype=np.uint8).reshape(3, 3, 3)
    seen = set()
    for rng in rngs(300):
        moved = pad_crop(image, 2, rng)
        matches = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if all(
                (moved[r, c] == (image[r + down, c + right] if 0 <= r + down < 3 and 0 <= c + right < 3 else 0)).all()
                for r in range(3)
                for c in range(3)
            )
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 25


@given(st.integers(1, 30), st.integers(0, 40), st.integers(0, 2**32))
def test_pad_crop_keeps_the_size_whatever_the_padding(side, pad, seed):
    image = np.full((side, side, 3), 9, np.uint8)
    assert pad_crop(image, pad, SampleGenerators(seed).of(0, 0)).shape == image.shape


def test_half_of_the_images_are_mirrored(photo):
    size = Preprocessing(size=(16, 16))
    photo = photo[:40, :40]
    plain = prepare(photo, size)
    found = [augment(photo, Augmentation(), size, rng) for rng in rngs(1000)]
    mirrored = sum((image == plain[:, ::-1]).all() for image in found)
    assert mirrored + sum((image == plain).all() for image in found) == 1000
    assert abs(mirrored - 500) < 3 * np.sqrt(250)
    for rng in rngs(20):
        assert (augment(photo, Augmentation(flip=False), size, rng) == plain).all()


@pytest.mark.parametrize("crop", ["none", "pad", "inception"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (28, 28)])
def test_every_crop_gives_the_models_size_and_repeats_itself(crop, shape):
    image = np.array(Image.effect_noise(shape[::-1], 90).convert("RGB"))
    given_image = image.copy()
    rules, size = Augmentation(crop=crop), Preprocessing(size=(28, 20))
    first, second, other = (augment(image, rules, size, SampleGenerators(seed).of(3, 4)) for seed in (1, 1, 2))
    assert first.shape == (28, 20, 3)
    assert first.dtype == np.uint8
    assert (first == second).all()
    assert (image == given_image).all()
    assert shape != (28, 28) or crop == "none" or (first != other).any()


@pytest.mark.parametrize(
    "wrong",
    [{"area": (0, 1)}, {"area": (0.5, 0.1)}, {"area": (0.5, 1.1)}, {"aspect": (2, 1)}, {"aspect": (0, 1)}, {"pad": -1}],
)
def test_impossible_ranges_are_refused(wrong):
    with pytest.raises(UserError, match=rf"^augmentation\.{next(iter(wrong))} is "):
        Augmentation(**wrong)


def test_a_crop_of_a_shrunk_jpeg_has_its_edges_moved_outwards(photo):
    """By hand: the box divided by the shrink, its lower edges rounded down and its upper ones up."""
    picture = open_picture(encode(Image.fromarray(photo), "JPEG", quality=95), "x")
    rules, size, seen = Augmentation(crop="inception", area=(0.2, 0.9)), (30, 40), set()
    for number, (rng, again) in enumerate(zip(rngs(40), rngs(40), strict=True)):
        top, left, height, width = crop_box(picture.height, picture.width, rules, again)
        shrink = max(s for s in (1, 2, 4, 8) if height // s >= 30 and width // s >= 40)
        seen.add(shrink)
        bottom, right = math.ceil((top + height) / shrink), math.ceil((left + width) / shrink)
        cut = picture.pixels(shrink)[top // shrink : bottom, left // shrink : right]
        assert (inception_crop(picture, rules, size, rng) == bilinear(cut, size)).all(), number
    assert {4, 8} <= seen
