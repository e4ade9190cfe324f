"""Image files: found, read, and decoded to RGB arrays by the one decoder of training, evaluation and serving."""

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from vitlab.data.decoding import (
    JPEG_MAGIC,
    MAX_BYTES,
    SUFFIXES,
    check_size,
    decode_quickly,
    describe_error,
    is_ppm,
    largest_shrink,
    open_image,
    quick_size,
    read_ppm,
    refuse,
    refusing,
    turn_of,
)
from vitlab.errors import UserError

RGB = NDArray[np.uint8]  # (height, width, 3)

STRIP_PIXELS = 2**24
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
OPAQUE = ("1", "L", "RGB", "P", "CMYK", "YCbCr", "HSV")
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_270,
)


class _Once(logging.Filter):
    """Lets each kind of message through once, whatever image it names."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        kind = str(record.args[1]) if isinstance(record.args, tuple) else record.getMessage()
        new = kind not in self._seen
        self._seen.add(kind)
        return new


log = logging.getLogger(__name__)
log.addFilter(_Once())


def decode(data: bytes | RGB, name: str) -> RGB:
    """Decodes an image file's bytes to RGB.

    EXIF orientation is applied. Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, a palette
    is looked up, CMYK is converted, and transparency, also a palette's or a colour key's, is laid over white.
    Of an animation the first frame is taken. The first image of each unusual kind is logged.

    Args:
        data: the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file, or of a binary PPM; or pixels, which are copied.
        name: what to call it in an error.

    Returns:
        image_HWC: uint8 RGB, the caller's own.

    Raises:
        UserError: it is empty, too large in bytes or pixels, in another format, damaged or cut short.
    """
    image_HWC = open_picture(data, name).pixels()
    return image_HWC if image_HWC.flags.owndata and image_HWC is not data else image_HWC.copy()


@dataclass(frozen=True, eq=False)
class Picture:
    """An image whose upright size is known, and whose pixels are decoded when they are asked for.

    Attributes:
        height, width: of the upright image, in pixels.
        shrinkable: whether it is a JPEG, which can be decoded at 1/2, 1/4 or 1/8 of its size for less work.
        pixels: decodes it: (shrink = 1) -> uint8 RGB of ceil(height / shrink) x ceil(width / shrink) pixels, not
            to be written to. Raises UserError where it is damaged or cut short.
    """

    height: int
    width: int
    shrinkable: bool
    pixels: Callable[..., RGB]

    def largest_shrink(self, smallest: tuple[int, int]) -> int:
        """By how much the picture may be shrunk in decoding and still hold `smallest` (height, width)."""
        return largest_shrink(self.height, self.width, smallest) if self.shrinkable else 1


def as_picture(image_HWC: RGB) -> Picture:
    """A picture of pixels that are decoded already."""
    return Picture(image_HWC.shape[0], image_HWC.shape[1], False, lambda shrink=1: image_HWC)


def open_picture(data: bytes | RGB, name: str) -> Picture:
    """Reads an image file's header; see `decode` for what is understood. Pixels are not copied.

    Raises:
        UserError: it is empty, too large in bytes or pixels, in another format, or its header is damaged.
    """
    if not isinstance(data, bytes):
        check_size(data.shape[1], data.shape[0], name)
        return as_picture(data)
    if is_ppm(data):
        return as_picture(read_ppm(data, name))
    quick = quick_size(data) if data.startswith(JPEG_MAGIC) else None
    if quick is not None:
        check_size(quick[1], quick[0], name)
        return _jpeg_picture(data, name, quick, turn=None)
    image = open_image(data, name)
    if isinstance(image, JpegImageFile) and image.mode in ("RGB", "L"):
        return _jpeg_picture(data, name, (image.height, image.width), turn_of(image))
    # Other formats may store their orientation behind the pixels, and cannot be shrunk: decode at once.
    with refusing(name):
        image.load()
    return as_picture(_upright(_rgb_pixels(image, name), turn_of(image)))


def _jpeg_picture(data: bytes, name: str, stored: tuple[int, int], turn: Image.Transpose | None) -> Picture:
    """A JPEG of `stored` (height, width), to be turned."""

    def pixels(shrink: int = 1) -> RGB:
        found_HWC = decode_quickly(data, *stored, shrink)
        if found_HWC is None:
            found_HWC = _decode_slowly(data, name, shrink)
        return _upright(found_HWC, turn)

    height, width = reversed(stored) if turn in SIDEWAYS else stored
    return Picture(height, width, True, pixels)


def _decode_slowly(data: bytes, name: str, shrink: int) -> RGB:
    image = open_image(data, name)
    with refusing(name):
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
    return _rgb_pixels(image, name)


def _rgb_pixels(image: Image.Image, name: str) -> RGB:
    """A loaded image's pixels; of a large one strip by strip, so that it is never in memory three times."""
    width, height = image.size
    if width * height <= STRIP_PIXELS:
        return np.array(_to_rgb(image, name))
    pixels_HWC = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels_HWC[top : top + rows] = np.asarray(_to_rgb(strip, name))
    return pixels_HWC


def _upright(image_HWC: RGB, turn: Image.Transpose | None) -> RGB:
    return image_HWC if turn is None else np.array(Image.fromarray(image_HWC).transpose(turn))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in GREY_16:
        _warn_once("16-bit grey is scaled to 8 bits", name)
        grey_HW = np.asarray(image, dtype=np.uint32)
        return Image.fromarray(((grey_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in TRANSPARENT or (image.mode in OPAQUE and "transparency" in image.info):
        _warn_once("transparency is laid over white", name)
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, transparent).convert("RGB")
    if image.mode in OPAQUE:
        if image.mode in ("P", "CMYK"):
            _warn_once({"P": "a palette's colours are looked up", "CMYK": "CMYK is converted to RGB"}[image.mode], name)
        return image.convert("RGB")
    raise refuse(name, f"pixels of Pillow's mode {image.mode} (32-bit, Lab or more exotic) have no defined colour")


def _warn_once(what: str, name: str) -> None:
    log.warning("%s: %s; so is every other image of this kind", name, what)


def read_file(path: Path) -> bytes:
    """A regular file's bytes, bounded in number.

    Raises:
        UserError: it is missing, unreadable, not a regular file, or larger than any image that is decoded.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refuse(str(path), "it is not a regular file")
        if status.st_size > MAX_BYTES:
            raise refuse(str(path), f"{status.st_size:,} bytes are more than the {MAX_BYTES:,} that are read")
        with path.open("rb", buffering=0) as file:
            return file.read(status.st_size + 1)
    except OSError as error:
        raise refuse(str(path), f"it cannot be read ({error.strerror or describe_error(error)})") from error


def read_image(path: Path | str) -> RGB:
    """Reads and decodes an image file; see `decode`.

    Returns:
        image_HWC: uint8 RGB.

    Raises:
        UserError: it cannot be read or decoded.
    """
    return decode(read_file(Path(path)), str(path))


def is_image_name(name: str) -> bool:
    """Whether a file name is visible and ends as an image's does, in upper or lower case."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES  # noqa: PTH122


def walk_images(folder: Path) -> list[Path]:
    """Every image file below a folder, sorted; hidden files and folders are left out, links are followed.

    Raises:
        UserError: the folder cannot be listed, or a link leads back to a folder above it.
    """
    return sorted(_walk(folder, frozenset()))


def _walk(folder: Path, above: frozenset[tuple[int, int]]) -> list[Path]:
    found: list[Path] = []
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            raise UserError(f"{folder}: this link leads back to a folder above it; remove the link")
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    found += _walk(Path(entry.path), above | {here})
                elif is_image_name(entry.name):
                    found.append(Path(entry.path))
    except OSError as error:
        raise UserError(
            f"{folder}: this folder cannot be listed ({error.strerror}); check it and its permissions"
        ) from error
    return found


def image_files(path: Path | str) -> list[Path]:
    """The image files that a path means: the file itself, or every image below a folder, sorted.

    Raises:
        UserError: there is nothing at `path`, or no image below it.
    """
    path = Path(path)
    if path.is_dir():
        files = walk_images(path)
        if not files:
            raise UserError(f"{path}: there is no image below this folder; images end in {', '.join(sorted(SUFFIXES))}")
        return files
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder; give an image file or a folder of images")
    return [path]
