"""Decodes untrusted image bytes: few formats, sizes checked before pixels exist, no warnings, one error.

Pillow opens nearly all. A JPEG is decoded at full size or at 1/2, 1/4 or 1/8 of it, which the format gives for less
work; simplejpeg (`pip install "vitlab[fast]"`) is libjpeg-turbo as Pillow's decoder is, gives the same bytes, and
returns an array directly, in half of the time. Binary PPM ("P6", from `vitlab data pack --encoding raw`) needs no
decoding.
"""

import importlib.util
import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vitlab.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset([".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"])
MAX_PIXELS = 178_956_970  # twice Pillow's threshold for a warning: where Pillow itself refuses
MAX_SIDE = 2**20  # Pillow resizes with float32 coordinates: beyond 2^24 they skip pixels
MAX_BYTES = 256 * 2**20

ORIENTATION_TAG = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# Pillow logs some of what it finds in damaged files; without a handler Python would print it beside our one line.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_SILENCE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_LOCK = threading.Lock()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings silent while any thread is inside.

    `warnings.catch_warnings` restores what it found on entering, which goes wrong when threads overlap; here
    each thread adds a filter and takes one away. The filter is put into the list by hand, because
    `warnings.filterwarnings` also forgets which warnings have been shown: every decoded image would have the
    rest of the program repeat its own.
    """
    filters = cast(list[object], warnings.filters)
    with _LOCK:
        filters.insert(0, _SILENCE)
    try:
        yield
    finally:
        with _LOCK, suppress(ValueError):
            filters.remove(_SILENCE)


def refuse(name: str, reason: str) -> UserError:
    """The error for an image that cannot be used: its name, why, and how to fix it."""
    return UserError(f"{name}: {reason}; remove or replace this image")


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a WebP file's header; Pillow would allocate its canvas before reporting them."""
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF


def check_size(width: int, height: int, name: str) -> None:
    """Refuses an image of more pixels, or a longer side, than are ever decoded.

    Raises:
        UserError: as it says.
    """
    if max(width, height) > MAX_SIDE:
        raise refuse(name, f"{width} x {height} pixels have a side of more than {MAX_SIDE:,}")
    if width * height > MAX_PIXELS:
        raise refuse(name, f"{width} x {height} pixels are more than the {MAX_PIXELS:,} that are decoded")


@contextmanager
def refusing(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises about the image `name` into one line, and keeps its warnings silent.

    Raises:
        UserError: the image is in another format, damaged or cut short.
    """
    try:
        with quiet():
            yield
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise refuse(name, "it is not a readable JPEG, PNG, WebP, GIF, BMP or TIFF image") from error
    except Image.DecompressionBombError as error:
        raise refuse(name, f"it has more than the {MAX_PIXELS:,} pixels that are decoded") from error
    except Exception as error:  # Pillow's plugins raise nearly every type on damaged files
        raise refuse(name, f"it cannot be decoded ({describe_error(error)})") from error


def open_image(data: bytes, name: str) -> Image.Image:
    """The first frame of an encoded image: its header is read and its size checked, its pixels are not decoded.

    Args:
        data: the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        name: what to call it in an error.

    Raises:
        UserError: it is empty, too large in bytes or pixels, in another format, or its header is damaged.
    """
    if not data:
        raise refuse(name, "it is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise refuse(name, f"{len(data):,} bytes are more than the {MAX_BYTES:,} that are read")
    size = _webp_size(data)
    if size is not None:
        check_size(*size, name)
    with refusing(name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        check_size(*image.size, name)
        return image


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What brings the stored pixels upright, as the EXIF orientation says; None where they are upright.

    Of formats that keep EXIF data behind the pixels it is known only after `image.load()`.
    """
    try:
        return TURNS.get(int(image.getexif().get(ORIENTATION_TAG, 1)))
    except Exception:  # the pixels are fine: a damaged EXIF block is no reason to refuse them
        return None


def describe_error(error: BaseException) -> str:
    """An exception's message as one short line."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


JPEG_MAGIC = b"\xff\xd8\xff"
SHRINKS = (8, 4, 2)
ORIENTATION_MARKS = (b"Exif\0\0", b"tiff:Orientation")  # anywhere in the file: finding out more is Pillow's work
HAS_SIMPLEJPEG = importlib.util.find_spec("simplejpeg") is not None
if HAS_SIMPLEJPEG:
    import simplejpeg


def largest_shrink(height: int, width: int, smallest: tuple[int, int]) -> int:
    """The largest of 8, 4, 2, 1 by which height x width pixels may be divided and still be `smallest` or more."""
    for shrink in SHRINKS:
        if height // shrink >= smallest[0] and width // shrink >= smallest[1]:
            return shrink
    return 1


def quick_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG that simplejpeg can decode alone; None where Pillow is needed.

    That is where simplejpeg is not installed, the bytes are no grey or YCbCr JPEG, or they may hold an orientation.
    """
    if not HAS_SIMPLEJPEG or not data.startswith(JPEG_MAGIC) or any(mark in data for mark in ORIENTATION_MARKS):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    return (height, width) if colours in ("YCbCr", "Gray") else None


def decode_quickly(data: bytes, height: int, width: int, shrink: int) -> NDArray[np.uint8] | None:
    """Decodes a JPEG with simplejpeg.

    Args:
        data: the file's bytes.
        height: of the stored image; it was checked, so no more than its pixels are allocated.
        width: likewise.
        shrink: 1, 2, 4 or 8.

    Returns:
        uint8 RGB of ceil(height / shrink) x ceil(width / shrink) pixels; None where simplejpeg is not
        installed, or finds the file damaged or of another size: then Pillow decides.
    """
    if not HAS_SIMPLEJPEG:
        return None
    wanted = -(-height // shrink), -(-width // shrink)
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        if shrink == 1:
            found = simplejpeg.decode_jpeg(data)
        else:
            found = simplejpeg.decode_jpeg(data, min_height=wanted[0], min_width=wanted[1])
    except ValueError:  # damaged or cut short; Pillow tolerates some damage
        return None
    return cast(NDArray[np.uint8], found) if found.shape == (*wanted, 3) else None


PPM_MAGIC = b"P6"
PPM_HEADER = re.compile(rb"P6(?:\s|#[^\n]{0,200}\n)+(\d{1,7})\s+(\d{1,7})\s+255\s")


def is_ppm(data: bytes) -> bool:
    """Whether the bytes say that they are a binary PPM."""
    return data.startswith(PPM_MAGIC)


def read_ppm(data: bytes, name: str) -> NDArray[np.uint8]:
    """The pixels of a binary PPM of 8 bits, as a read-only view of its bytes: nothing is copied.

    Args:
        data: the file's bytes.
        name: what to call it in an error.

    Returns:
        image_HWC: uint8 RGB.

    Raises:
        UserError: its header is damaged, it is too large, of 16 bits, or cut short.
    """
    header = PPM_HEADER.match(data)
    if header is None:
        raise refuse(name, "it is not a binary PPM of 8 bits a channel")
    width, height = int(header[1]), int(header[2])
    if not width or not height:
        raise refuse(name, f"it has {width} x {height} pixels")
    check_size(width, height, name)
    if len(data) - header.end() < width * height * 3:
        raise refuse(name, "it is cut short")
    return np.frombuffer(data, np.uint8, width * height * 3, header.end()).reshape(height, width, 3)


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey (height, width) as three equal channels; RGB unchanged."""
    return image.repeat(3).reshape(*image.shape, 3) if image.ndim == 2 else image


def write_ppm(image_HWC: NDArray[np.uint8]) -> bytes:
    """A uint8 RGB image as a binary PPM."""
    height, width, channels = image_HWC.shape
    assert image_HWC.dtype == np.uint8
    assert channels == 3
    return b"P6\n%d %d\n255\n" % (width, height) + image_HWC.tobytes()
