"""Opens untrusted image bytes with Pillow: few formats, sizes checked before pixels exist, no warnings, one error."""

import io
import logging
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

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
