"""Damaged and cut-short images: an image, or one line that names it; never anything else."""

import struct
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.pictures import encode
from vitlab.data.images import decode
from vitlab.errors import UserError

FORMATS = {
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "CMYK JPEG": {},
    "PNG": {},
    "palette PNG": {},
    "16-bit PNG": {},
    "WEBP": {},
    "lossless WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "LZW TIFF": {"compression": "tiff_lzw"},
    "JPEG TIFF": {"compression": "jpeg"},
}
WITH_LIBTIFF = ("LZW TIFF", "JPEG TIFF")  # it writes to stderr from C, and Pillow offers no way to stop it
MODES = {"CMYK JPEG": "CMYK", "palette PNG": "P", "16-bit PNG": "I;16", "GIF": "P"}


def whole(photo, kind):
    picture = photo.convert("L").convert("I") if kind == "16-bit PNG" else photo
    return encode(picture.convert(MODES.get(kind, "RGB")), kind.split()[-1], **FORMATS[kind])


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("percent", [1, 5, 25, 50, 75, 90])
def test_a_cut_short_image_is_refused_by_name(small_photo, kind, percent):
    data = whole(small_photo, kind)
    assert decode(data, "whole").shape == (60, 90, 3)
    with pytest.raises(UserError, match=r"^cut\.img: .*remove or replace this image$") as caught:
        decode(data[: len(data) * percent // 100], "cut.img")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_gives_an_image_or_a_refusal(small_photo, kind, capfd):
    data = whole(small_photo, kind)
    place = st.integers(0, len(data) - 1)
    # Headers are where decoders go wrong, so half of the changes fall there.
    places = st.one_of(place, st.integers(0, min(len(data) - 1, 200)))

    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=6),
        st.none() | st.tuples(place, place),
        st.none() | st.tuples(place, st.binary(max_size=20)),
    )
    def damaged(changes, removed, inserted):
        broken = bytearray(data)
        for position, value in changes:
            broken[position] = value
        if removed:
            del broken[min(removed) : min(removed) + 16]
        if inserted:
            broken[inserted[0] : inserted[0]] = inserted[1]
        try:
            image = decode(bytes(broken), "broken.img")
        except UserError as error:
            assert str(error).startswith("broken.img: ")
            assert "\n" not in str(error)
        else:
            assert image.ndim == 3
            assert image.shape[2] == 3

    damaged()
    if kind not in WITH_LIBTIFF:
        assert capfd.readouterr().err == ""


def test_a_broken_chunk_is_refused(small_photo):
    """Pillow raises a SyntaxError here."""
    data = bytearray(encode(small_photo))
    length = data.index(b"IDAT") - 4
    data[length : length + 4] = (int.from_bytes(data[length : length + 4], "big") - 50).to_bytes(4, "big")
    with pytest.raises(UserError, match=r"^x: it cannot be decoded \(broken PNG file"):
        decode(bytes(data), "x")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF"]))
def test_noise_behind_a_magic_number_is_refused(noise, magic):
    with pytest.raises(UserError, match="^noise: "):
        decode(magic + noise, "noise")


def test_nothing_but_the_one_line_reaches_stderr(small_photo):
    """In a process of its own, because pytest itself listens to Python's logs and warnings."""
    many_samples = bytearray(encode(small_photo, "TIFF"))
    start = many_samples.index(struct.pack("<HHI", 277, 3, 1))  # samples per pixel
    many_samples[start + 8 : start + 10] = struct.pack("<H", 219)
    code = (
        "import sys; from vitlab.data.images import decode; from vitlab.errors import UserError\n"
        "try: decode(sys.stdin.buffer.read(), 'x')\n"
        "except UserError as error: print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=bytes(many_samples), capture_output=True, check=True)
    assert ran.stdout.startswith(b"x: it is not a readable JPEG, PNG")
    assert ran.stderr == b""
