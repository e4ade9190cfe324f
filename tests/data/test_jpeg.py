"""Shrunk decoding: the same bytes from both decoders, and close to decoding in full and averaging."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.pictures import encode
from vitlab.data import decoding
from vitlab.data.decoding import decode_quickly, largest_shrink
from vitlab.data.images import decode, open_picture
from vitlab.errors import UserError

with_simplejpeg = pytest.mark.skipif(not decoding.HAS_SIMPLEJPEG, reason="simplejpeg is not installed")


def slowly(data, shrink, monkeypatch):
    monkeypatch.setattr(decoding, "HAS_SIMPLEJPEG", False)
    return open_picture(data, "x").pixels(shrink)


@with_simplejpeg
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(90, 60), (33, 17), (9, 8), (100, 3)])
def test_both_decoders_give_the_same_bytes(small_photo, monkeypatch, subsampling, progressive, mode, size):
    picture = small_photo.resize(size).convert(mode)
    options = {} if mode == "L" else {"subsampling": subsampling}
    data = encode(picture, "JPEG", quality=87, progressive=progressive, **options)
    for shrink in (1, 2, 4, 8):
        if min(size) // shrink:
            quick = decode_quickly(data, size[1], size[0], shrink)
            assert quick is not None
            assert quick.shape == (-(-size[1] // shrink), -(-size[0] // shrink), 3)
            with monkeypatch.context() as patch:
                assert (quick == slowly(data, shrink, patch)).all()


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_shrunk_image_is_the_average_of_its_blocks(photo, shrink):
    """As libjpeg's scaled transform keeps the low frequencies, which is nearly the average."""
    side = 400
    data = encode(Image.fromarray(photo[:side, :side]), "JPEG", quality=95, subsampling=0)
    found = open_picture(data, "x").pixels(shrink).astype(float)
    blocks = decode(data, "x").astype(float).reshape(side // shrink, shrink, side // shrink, shrink, 3)
    assert abs(found - blocks.mean((1, 3))).mean() < 1.0


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 600), st.integers(1, 600))
def test_the_largest_shrink_keeps_what_is_needed(height, width, least_height, least_width):
    shrink = largest_shrink(height, width, (least_height, least_width))
    assert shrink in (1, 2, 4, 8)
    if shrink > 1:
        assert height // shrink >= least_height
        assert width // shrink >= least_width
    if shrink < 8:
        assert height // (2 * shrink) < least_height or width // (2 * shrink) < least_width


@pytest.mark.parametrize("orientation", range(1, 9))
def test_shrunk_images_are_upright(photo, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(photo[:160, :240]), "JPEG", quality=95, subsampling=0, exif=exif)
    picture = open_picture(data, "x")
    whole = picture.pixels()
    assert whole.shape == (picture.height, picture.width, 3)
    assert (picture.height > picture.width) == (orientation >= 5)
    half = picture.pixels(2).astype(float)
    blocks = whole.astype(float).reshape(picture.height // 2, 2, picture.width // 2, 2, 3)
    assert abs(half - blocks.mean((1, 3))).mean() < 1.0


def test_only_plain_jpegs_are_shrunk(small_photo):
    assert open_picture(encode(small_photo, "JPEG"), "x").largest_shrink((10, 10)) == 4
    assert open_picture(encode(small_photo), "x").largest_shrink((10, 10)) == 1
    assert open_picture(encode(small_photo.convert("CMYK"), "JPEG"), "x").largest_shrink((10, 10)) == 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_simplejpeg_refuses_pillow_decides(small_photo, data):
    """With and without simplejpeg: the same pixels or the same refusal."""
    whole = bytearray(encode(small_photo, "JPEG"))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))

    def outcome():
        try:
            return decode(bytes(whole), "x").tobytes()
        except UserError as error:
            return str(error)

    expected = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "HAS_SIMPLEJPEG", False)
        assert outcome() == expected
