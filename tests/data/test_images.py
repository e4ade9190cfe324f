"""The decoder against pixels computed by hand, and the resize against torch's."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from data.pictures import encode
from vitlab.data import decoding, images
from vitlab.data.images import decode, image_files, read_image
from vitlab.data.resize import prepare
from vitlab.errors import UserError
from vitlab.recipes.preprocessing import Preprocessing

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def corner_image():
    """2 x 3 pixels: a red corner at the top left, a green one at the bottom right, black elsewhere."""
    image = Image.new("RGB", (3, 2))
    image.putpixel((0, 0), RED)
    image.putpixel((2, 1), GREEN)
    return image


def pixels(data):
    return decode(data, "x.png").tolist()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_their_pixels(small_photo, image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    assert (decode(encode(small_photo, image_format, **options), "x") == np.array(small_photo)).all()


def test_jpeg_is_decoded_in_full(photo):
    data = encode(Image.fromarray(photo), "JPEG", quality=90)
    assert (decode(data, "x") == np.array(Image.open(io.BytesIO(data)))).all()


def test_the_result_is_the_callers_own(small_photo):
    image = decode(encode(small_photo), "x")
    image[0, 0] = 7
    assert image.flags.owndata
    assert image.dtype == np.uint8


def test_grey_becomes_three_equal_channels():
    image = Image.new("L", (2, 1))
    image.putpixel((1, 0), 200)
    assert pixels(encode(image)) == [[[0, 0, 0], [200, 200, 200]]]


def test_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(encode(image)) == [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_rescaled(image_format):
    ramp = np.array([[0, 128, 129, 257, 32768, 65278, 65407, 65535]], np.uint16)
    # value / 257 to the nearest whole number
    expected = [0, 0, 1, 1, 128, 254, 255, 255]
    found = decode(encode(Image.fromarray(ramp), image_format), "x")
    assert found[0, :, 0].tolist() == expected
    assert (found == found[:, :, :1]).all()


def test_palette():
    image = Image.new("P", (2, 1))
    image.putpalette([*BLUE, *GREEN])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image)) == [[list(BLUE), list(GREEN)]]


def test_a_palettes_transparent_red_becomes_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    white = [255, 255, 255]
    assert pixels(encode(image, transparency=0)) == [[white, list(GREEN)]]
    assert pixels(encode(image, "GIF", transparency=0)) == [[white, list(GREEN)]]
    # one opacity an entry: red half, green not at all transparent
    assert pixels(encode(image, transparency=bytes([128, 255]))) == [[[255, 127, 127], list(GREEN)]]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_transparent_colour_becomes_white(mode):
    image = Image.new(mode, (2, 1))
    key = 0 if mode == "L" else BLACK
    image.putpixel((1, 0), 90 if mode == "L" else (90, 90, 90))
    assert pixels(encode(image, transparency=key)) == [[[255] * 3, [90] * 3]]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF"])
def test_opacity_is_laid_over_white(image_format):
    image = Image.new("RGBA", (3, 1))
    for column, alpha in enumerate((0, 51, 255)):
        image.putpixel((column, 0), (200, 0, 100, alpha))
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    # 255 + (c - 255) * 51 / 255, by hand
    assert pixels(encode(image, image_format, **options)) == [[[255] * 3, [244, 204, 224], [200, 0, 100]]]


def test_grey_with_opacity():
    image = Image.new("LA", (2, 1), (100, 255))
    image.putpixel((1, 0), (100, 0))
    assert pixels(encode(image)) == [[[100] * 3, [255] * 3]]


def test_cmyk_is_not_inverted():
    cyan_and_black = Image.new("CMYK", (16, 8), (255, 0, 0, 0))
    cyan_and_black.paste((0, 0, 0, 255), (8, 0, 16, 8))
    found = decode(encode(cyan_and_black, "JPEG", quality=100), "x").astype(int)
    assert abs(found[4, 2] - [0, 255, 255]).max() <= 3
    assert abs(found[4, 13] - [0, 0, 0]).max() <= 3


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(image_format, orientation):
    """The stored pixels are the upright ones, moved as the EXIF standard's eight cases say."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[8:, 16:] = 255, 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}.get(image_format, {})
    found = decode(encode(Image.fromarray(np.ascontiguousarray(stored)), image_format, exif=exif, **options), "x")
    assert found.shape == upright.shape
    assert abs(found.astype(int) - upright).max() <= 3


def test_a_damaged_exif_block_does_not_cost_the_image(small_photo):
    data = encode(small_photo, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12 broken")
    assert decode(data, "x").shape == (60, 90, 3)


def test_orientation_text_that_is_no_exif_does_not_cost_the_image(small_photo):
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 4\nnot hexadecimal")
    assert decode(encode(small_photo, pnginfo=text), "x").shape == (60, 90, 3)


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for image_format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50, **options)
        assert pixels(data)[0][0] == list(RED), image_format


def test_32_bit_pixels_are_refused_with_their_mode():
    for values in (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int32)):
        with pytest.raises(UserError, match=r"^x\.tif: pixels of Pillow's mode [FI] "):
            decode(encode(Image.fromarray(values), "TIFF"), "x.tif")


def test_lab_is_refused_or_converted():
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (4, 4), RED),
        ImageCms.createProfile("sRGB"),
        ImageCms.createProfile("LAB"),
        outputMode="LAB",
    )
    with pytest.raises(UserError, match="mode LAB"):
        decode(encode(lab, "TIFF"), "x.tif")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"hello, this is not an image", "not a readable JPEG, PNG"),
        (b"\x89PNG\r\n\x1a\n", "x.png"),
        (b"%PDF-1.4", "not a readable JPEG, PNG"),
        (b"SIMPLE  =                    T", "not a readable JPEG, PNG"),  # FITS
        (b"8BPS\0\x01", "not a readable JPEG, PNG"),  # Photoshop
    ],
)
def test_what_is_no_image_is_refused_by_name(data, reason):
    with pytest.raises(UserError, match=r"^x\.png: .*remove or replace this image$") as caught:
        decode(data, "x.png")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def png_claiming(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif_claiming(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + encode(Image.new("L", (1, 1)), "GIF")[10:]


def bmp_claiming(width, height):
    data = bytearray(encode(Image.new("RGB", (1, 1)), "BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp_claiming(width, height):
    data = bytearray(encode(Image.new("RGBA", (64, 64), (1, 2, 3, 4)), "WEBP", quality=50))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def jpeg_claiming(width, height):
    data = bytearray(encode(Image.new("RGB", (8, 8)), "JPEG"))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_claiming(width, height):
    data = bytearray(encode(Image.new("RGB", (8, 8)), "TIFF"))
    for tag, value in ((256, width), (257, height)):
        start = data.index(struct.pack("<HH", tag, 4 if struct.pack("<HH", tag, 4) in data else 3))
        data[start : start + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize(
    "claiming", [png_claiming, gif_claiming, bmp_claiming, webp_claiming, jpeg_claiming, tiff_claiming]
)
@pytest.mark.parametrize("pillows_limit", [None, 89_478_485])
def test_a_pixel_bomb_is_refused_from_its_header(claiming, pillows_limit, monkeypatch):
    """30,000 x 30,000 pixels, also where somebody took Pillow's own limit away; decoding would be noticed."""

    def never(*arguments):
        raise AssertionError("the bomb was decoded")

    for plugin in ("PngImagePlugin.PngImageFile", "JpegImagePlugin.JpegImageFile", "ImageFile.ImageFile"):
        monkeypatch.setattr(f"PIL.{plugin}.load", never)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", never)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", pillows_limit)
    with pytest.raises(UserError, match=r"^x: .* pixels .*remove or replace this image$"):
        decode(claiming(30_000, 30_000), "x")


def test_a_side_too_long_for_resizing_is_refused():
    with pytest.raises(UserError, match="1 x 1048577 pixels have a side of more than 1,048,576"):
        decode(png_claiming(1, 2**20 + 1), "x")
    longest = np.full((2, 2**20, 3), 5, np.uint8)
    assert (prepare(longest, Preprocessing(size=(3, 7), crop=0.9)) == 5).all()


def test_between_pillows_warning_and_its_refusal_nothing_is_said(monkeypatch):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 3000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(encode(Image.new("L", (60, 60))), "x").shape == (60, 60, 3)


@pytest.mark.parametrize("kind", ["lossy", "lossless", "alpha"])
def test_webp_sizes_are_read_from_all_its_headers(kind):
    mode = "RGBA" if kind == "alpha" else "RGB"
    data = encode(Image.new(mode, (301, 77)), "WEBP", lossless=kind == "lossless")
    assert decoding._webp_size(data) == (301, 77)


def test_too_many_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("vitlab.data.decoding.MAX_BYTES", 100)
    monkeypatch.setattr("vitlab.data.images.MAX_BYTES", 100)
    (tmp_path / "x.png").write_bytes(bytes(101))
    for refused in (lambda: decode(bytes(101), "x.png"), lambda: read_image(tmp_path / "x.png")):
        with pytest.raises(UserError, match=r"x\.png: 101 bytes are more than the 100"):
            refused()


def test_decoding_in_threads_leaves_the_warning_filters_alone(small_photo):
    broken_exif = encode(small_photo, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12 broken")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        shapes = list(pool.map(lambda _: decode(broken_exif, "x").shape, range(200)))
    assert set(shapes) == {(60, 90, 3)}
    assert list(warnings.filters) == before


# ---------------------------------------------------------------------------------------------- preparing


def by_torch(image, size, mode):
    numbers = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    resized = torch.nn.functional.interpolate(numbers, size=size, mode=mode, align_corners=False, antialias=True)
    return resized[0].permute(1, 2, 0).clamp(0, 255).numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (96, 160), (600, 700)])
def test_the_square_resize_is_torchs_antialiased_one(photo, interpolation, size):
    muted = photo // 2 + 60  # leaves the bicubic kernel room to overshoot: Pillow cuts off after each of its passes
    found = prepare(muted, Preprocessing(size=size, interpolation=interpolation))
    difference = abs(found - by_torch(muted, size, interpolation))
    assert difference.max() <= 1.2  # Pillow rounds to whole numbers between its two passes
    assert difference.mean() < 0.35


def test_the_area_resize_is_a_mean(photo):
    image = photo[:420, :640]
    found = prepare(image, Preprocessing(size=(210, 160), interpolation="area"))
    means = image.reshape(210, 2, 160, 4, 3).mean(axis=(1, 3))
    assert abs(found - means).max() <= 1.01


@pytest.mark.parametrize("resize", ["square", "shorter_side"])
@pytest.mark.parametrize("turned", [False, True])
def test_cropping_before_resizing_is_resizing_before_cropping(photo, resize, turned):
    """The paper's evaluation: shorter side 256, centre 224 (section 4.1); here also with the square resize."""
    image = np.ascontiguousarray(photo.transpose(1, 0, 2)) if turned else photo
    found = prepare(image, Preprocessing(resize=resize, crop=0.875))
    whole = [256, 256] if resize == "square" else [256, round(640 * 256 / 427)]
    height, width = reversed(whole) if turned else whole
    resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - 224) // 2, (width - 224) // 2
    expected = resized[top : top + 224, left : left + 224]
    # Pillow keeps the box in float32, so a value half-way between two levels may fall to the other one.
    assert abs(found.astype(int) - expected).max() <= 1
    assert (found == expected).mean() > 0.8


def test_an_image_of_the_right_size_is_left_as_it_is(photo):
    image = photo[:224, :224]
    for resize in ("square", "shorter_side"):
        assert prepare(image, Preprocessing(resize=resize)) is image


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.sampled_from(["square", "shorter_side"]),
    st.sampled_from([1.0, 0.875, 0.95, 0.3]),
    st.sampled_from(["bilinear", "bicubic", "area"]),
)
def test_any_image_is_brought_to_any_size(shape, size, resize, crop, interpolation):
    image = np.full((*shape, 3), 77, np.uint8)
    found = prepare(image, Preprocessing(size, resize, crop, interpolation))
    assert found.shape == (*size, 3)
    assert (found == 77).all()


def test_a_thin_strip_is_not_blown_up_as_a_whole():
    strip = np.zeros((2, 200_000, 3), np.uint8)
    assert prepare(strip, Preprocessing(resize="shorter_side", crop=0.5)).shape == (224, 224, 3)


# ------------------------------------------------------------------------------------------ finding files


def test_image_files(animals):
    (animals / "cat/notes.txt").write_text("not an image")
    (animals / "cat/._0.JPG").write_text("hidden")
    (animals / ".hidden").mkdir()
    (animals / ".hidden/x.png").write_text("hidden")
    found = image_files(animals)
    assert len(found) == 20
    assert found == sorted(found)
    assert image_files(str(found[3])) == [found[3]]
    assert read_image(found[3]).shape == (43, 40, 3)


def test_what_cannot_be_found_is_said(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        image_files(tmp_path / "missing")
    with pytest.raises(UserError, match="no image below"):
        image_files(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(UserError, match="not a regular file"):
        read_image(tmp_path)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "palette with transparency"])
@pytest.mark.parametrize("strip", [1, 90, 1000, 5399])
def test_large_images_come_strip_by_strip_and_are_the_same(small_photo, monkeypatch, mode, strip):
    if mode == "I;16":
        data = encode(Image.fromarray(np.array(small_photo.convert("L")).astype(np.uint16) * 257))
    elif mode == "palette with transparency":
        data = encode(small_photo.convert("P"), transparency=3)
    else:
        data = encode(small_photo.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    expected = decode(data, "x")
    monkeypatch.setattr(images, "STRIP_PIXELS", strip)
    assert (decode(data, "x") == expected).all()
