"""Bytes -> RGB array -> model input: the one decoder and resize of training, evaluation and serving."""

import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab.data.pillow import MAX_BYTES, SUFFIXES, describe_error, open_image, refuse
from vitlab.errors import UserError
from vitlab.recipes.preprocessing import Preprocessing

RGB = NDArray[np.uint8]  # (height, width, 3)

KERNELS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
OPAQUE = ("1", "L", "RGB", "P", "CMYK", "YCbCr", "HSV")
TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")


def decode(data: bytes, name: str) -> RGB:
    """Decodes an image file's bytes to RGB.

    EXIF orientation is applied. Grey becomes three equal channels, 16-bit grey is scaled to 8 bits, a palette
    is looked up, CMYK is converted, and transparency, also a palette's or a colour key's, is laid over white.
    Of an animation the first frame is taken.

    Args:
        data: the bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF file.
        name: what to call it in an error.

    Returns:
        image_HWC: uint8 RGB.

    Raises:
        UserError: it is empty, too large in bytes or pixels, in another format, damaged or cut short.
    """
    return np.array(_to_rgb(open_image(data, name), name))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode in GREY_16:
        grey_HW = np.asarray(image, dtype=np.uint32)
        return Image.fromarray(((grey_HW + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in TRANSPARENT or (image.mode in OPAQUE and "transparency" in image.info):
        transparent = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, transparent).convert("RGB")
    if image.mode in OPAQUE:
        return image.convert("RGB")
    raise refuse(name, f"pixels of Pillow's mode {image.mode} (32-bit, Lab or more exotic) have no defined colour")


def _box(height: int, width: int, preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """What resizing to size / crop and cutting the centre would keep: (left, top, right, bottom).

    It is found before resizing, so that a strip of 1 x 10,000 pixels is never blown up as a whole.
    """
    out_height, out_width = preprocessing.size
    whole_height = max(out_height, round(out_height / preprocessing.crop))
    whole_width = max(out_width, round(out_width / preprocessing.crop))
    if preprocessing.resize == "shorter_side":
        scale = max(whole_height / height, whole_width / width)
        whole_height = max(whole_height, round(height * scale))
        whole_width = max(whole_width, round(width * scale))
    top = (whole_height - out_height) // 2 * height / whole_height
    left = (whole_width - out_width) // 2 * width / whole_width
    bottom = top + out_height * height / whole_height
    right = left + out_width * width / whole_width
    return left, top, right, bottom


def prepare(image_HWC: RGB, preprocessing: Preprocessing) -> RGB:
    """Resizes and centre-crops an image for evaluation (section 4.1; resize rules of `Preprocessing`).

    Args:
        image_HWC: uint8 RGB of any size.
        preprocessing: the model's.

    Returns:
        uint8 RGB of `preprocessing.size`; the same array where nothing has to be done.
    """
    height, width = image_HWC.shape[:2]
    out_height, out_width = preprocessing.size
    box = _box(height, width, preprocessing)
    if (height, width) == (out_height, out_width) and box == (0, 0, width, height):
        return image_HWC
    kernel = KERNELS[preprocessing.interpolation]
    return np.array(Image.fromarray(image_HWC).resize((out_width, out_height), kernel, box=box))


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
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
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
            f"{folder}: this folder cannot be listed ({error.strerror}); check it and its rights"
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
