"""Laws of random erasing, and its rectangles against the paper's rule simulated by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.pictures import augment
from vitlab.data.augmentation.augment import Erasure, draw_erasure, erase
from vitlab.data.order import SampleGenerators
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing


def drawn(count, size=(300, 200), probability=1.0):
    return [draw_erasure(probability, size, SampleGenerators(2).of(0, index)) for index in range(count)]


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32))
def test_a_rectangle_lies_in_the_image_and_keeps_to_its_ranges(height, width, seed):
    erasure = draw_erasure(1.0, (height, width), SampleGenerators(seed).of(0, 0))
    if erasure is None:
        return
    erased_height, erased_width, channels = erasure.noise_HWC.shape
    assert channels == 3
    assert erasure.noise_HWC.dtype == np.uint8
    assert 0 <= erasure.top <= erasure.top + erased_height <= height
    assert 0 <= erasure.left <= erasure.left + erased_width <= width
    # Rounded sides: the unrounded ones lie within half a pixel.
    area = height * width
    assert (erased_height - 0.5) * (erased_width - 0.5) <= 0.4 * area
    assert (erased_height + 0.5) * (erased_width + 0.5) >= 0.02 * area
    assert erased_height - 0.5 <= (erased_width + 0.5) / 0.3 or erased_width == 1
    assert erased_width - 0.5 <= (erased_height + 0.5) / 0.3 or erased_height == 1


def test_rectangles_have_the_distribution_of_the_papers_algorithm():
    """The algorithm with real sides and places, drawn from another generator."""
    rng = np.random.default_rng(0)
    height, width = 300, 200
    area = rng.uniform(0.02, 0.4, 400_000) * height * width
    aspect = rng.uniform(0.3, 1 / 0.3, 400_000)
    tall, wide = np.sqrt(area * aspect), np.sqrt(area / aspect)
    top, left = rng.uniform(0, height, 400_000), rng.uniform(0, width, 400_000)
    fits = (top + tall <= height) & (left + wide <= width)
    expected = np.stack((top, left, tall, wide))[:, fits]
    found = np.array([(e.top, e.left, *e.noise_HWC.shape[:2]) for e in drawn(4000)]).T
    for one, other in zip(found, expected, strict=True):
        ranks = np.searchsorted(np.sort(other), np.sort(one) + 0.25) / len(other)
        assert abs(ranks - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / np.sqrt(4000) + 0.006  # sides are whole


def test_noise_is_uniform():
    values = np.concatenate([erasure.noise_HWC.ravel() for erasure in drawn(300)])
    counts = np.bincount(values, minlength=256)
    mean = len(values) / 256
    assert ((counts - mean) ** 2 / mean).sum() < 255 + 6 * np.sqrt(510)


def test_the_probability_is_kept():
    found = sum(erasure is not None for erasure in drawn(2000, probability=0.25))
    assert abs(found - 500) < 4 * np.sqrt(375)
    assert not any(drawn(50, probability=0.0))
    assert all(drawn(200))


def test_off_draws_nothing():
    rng, untouched = SampleGenerators(0).of(0, 0), SampleGenerators(0).of(0, 0)
    assert draw_erasure(0.0, (8, 8), rng) is None
    assert rng.random() == untouched.random()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 300), (300, 1), (2, 2)])
def test_tiny_images_end_the_search(size):
    for erasure in drawn(20, size=size):
        assert erasure is None or (erasure.noise_HWC.shape[0] <= size[0] and erasure.noise_HWC.shape[1] <= size[1])


def test_erase_changes_the_rectangle_and_nothing_else():
    image = np.zeros((6, 7, 3), np.uint8)
    noise = np.full((2, 3, 3), 9, np.uint8)
    erased = erase(image, Erasure(1, 4, noise))
    assert image.max() == 0
    where = np.argwhere(erased.any(-1))
    assert {tuple(place) for place in where} == {(y, x) for y in (1, 2) for x in (4, 5, 6)}
    assert (erased[1:3, 4:7] == 9).all()


def test_augment_erases_last(photo):
    size = Preprocessing(size=(32, 32))
    rules = Augmentation(randaugment_layers=1, randaugment_magnitude=9, erase=1.0)
    before = Augmentation(randaugment_layers=1, randaugment_magnitude=9)
    for index in range(20):
        rng = SampleGenerators(1).of(0, index)
        unerased = augment(photo, before, size, rng)
        erasure = draw_erasure(1.0, (32, 32), rng)
        found = augment(photo, rules, size, SampleGenerators(1).of(0, index))
        np.testing.assert_array_equal(found, erase(unerased, erasure))
