"""Raw pixels: what is written reads back, and damaged headers are refused."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from vitlab.data.decoding import read_ppm, write_ppm
from vitlab.data.images import decode
from vitlab.errors import UserError

images = arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


@given(images)
def test_pixels_come_back(image):
    data = write_ppm(image)
    assert (read_ppm(data, "x") == image).all()
    assert (np.array(Image.open(io.BytesIO(data))) == image).all()


def test_the_decoder_gives_the_callers_own_pixels():
    image = decode(write_ppm(np.zeros((2, 3, 3), np.uint8)), "x")
    image[0, 0] = 7
    assert image.flags.owndata


def test_a_comment_is_passed_over():
    assert read_ppm(b"P6\n# made by hand\n2 1\n255\n" + bytes(range(6)), "x").tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P6", "not a binary PPM"),
        (b"P6\n2 1\n65535\n" + bytes(12), "not a binary PPM"),
        (b"P6\n2 1\n255\n" + bytes(5), "cut short"),
        (b"P6\n0 1\n255\n", "0 x 1"),
        (b"P6\n9999999 9999999\n255\n", "side of more than"),
        (b"P6\n900000 900000\n255\n", "pixels are more than"),
    ],
)
def test_damage_is_refused(data, reason):
    with pytest.raises(UserError, match=rf"^x: .*{reason}.*remove or replace this image$"):
        decode(data, "x")


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_noise_is_refused_or_an_image(noise):
    try:
        assert decode(b"P6" + noise, "x").size
    except UserError as error:
        assert "\n" not in str(error)
