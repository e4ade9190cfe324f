"""Raw pixels as a file: binary PPM ("P6"), which needs no decoding. `vitlab data pack --encoding raw` writes it."""

import re

import numpy as np
from numpy.typing import NDArray

from vitlab.data.decoding.pillow import check_size, refuse

MAGIC = b"P6"
HEADER = re.compile(rb"P6(?:\s|#[^\n]{0,200}\n)+(\d{1,7})\s+(\d{1,7})\s+255\s")


def is_ppm(data: bytes) -> bool:
    """Whether the bytes say that they are a binary PPM."""
    return data.startswith(MAGIC)


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
    header = HEADER.match(data)
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
