"""The training resize against its formula in float64, mirror images, and the evaluation resize against Pillow's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vitlab.data.resize import bilinear, mirror, prepare
from vitlab.recipes.preprocessing import Preprocessing


def by_formula(image, size):
    """Bilinear with half-pixel centres, written out for each axis in float64."""
    found = image.astype(np.float64)
    for axis in (0, 1):
        old, new = image.shape[axis], size[axis]
        place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(3)])
        found = found.take(low, axis) * (1 - share) + found.take(high, axis) * share
    return found


@pytest.mark.parametrize("cut", [(10, 300, 20, 420), (0, 427, 0, 640), (5, 105, 7, 130), (3, 4, 0, 640), (0, 1, 0, 1)])
@pytest.mark.parametrize("size", [(224, 224), (37, 500)])
def test_bilinear_is_the_formula(photo, cut, size):
    top, bottom, left, right = cut
    image = photo[top:bottom, left:right]
    found = bilinear(image, size)
    assert found.shape == (*size, 3)
    assert found.flags.c_contiguous
    difference = found - by_formula(image, size)
    assert abs(difference).max() <= 1 + 1e-9
    assert abs(difference.mean()) < 0.1  # no drift to darker or lighter


def test_bilinear_does_not_antialias():
    """Columns of 0 and 255 in turn, halved: every output pixel lies between two columns and is their mean; a third
    of the size meets single columns, which antialiasing would have averaged away."""
    stripes = np.zeros((6, 12, 3), np.uint8)
    stripes[:, 1::2] = 255
    assert set(np.unique(bilinear(stripes, (6, 6))).tolist()) <= {127, 128}
    assert np.unique(bilinear(stripes, (6, 4))).tolist() == [0, 255]


def test_read_only_pixels_are_resized_and_mirrored(photo):
    fixed = photo[:50, :60]
    fixed.flags.writeable = False
    assert (bilinear(fixed, (20, 20)) == bilinear(fixed.copy(), (20, 20))).all()
    assert (mirror(fixed) == fixed[:, ::-1]).all()


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_a_mirror_image_twice_is_the_image(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert (mirror(image) == image[:, ::-1]).all()
    assert (mirror(mirror(image)) == image).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area"])
@pytest.mark.parametrize("shape", [(427, 640), (100, 80), (224, 300)])
def test_evaluation_is_within_one_level_of_pillows_resize_then_crop(photo, interpolation, shape):
    """Resize to 256 x 256, cut the centre: the paper's evaluation, by Pillow's own two steps."""
    image = photo[: shape[0], : shape[1]]
    rules = Preprocessing(size=(224, 224), resize="square", crop=0.875, interpolation=interpolation)
    kernel = {"bilinear": 2, "bicubic": 3, "area": 4}[interpolation]
    expected = Image.fromarray(image).resize((256, 256), Image.Resampling(kernel)).crop((16, 16, 240, 240))
    difference = abs(prepare(image, rules).astype(int) - np.array(expected).astype(int))
    assert difference.max() <= 1
