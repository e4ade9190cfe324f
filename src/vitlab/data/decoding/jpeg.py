"""Pixels of a JPEG, at full size or at 1/2, 1/4 or 1/8 of it, which the format gives for less work.

Both decoders are libjpeg-turbo and give the same bytes; simplejpeg (`pip install "vitlab[fast]"`) returns an array
directly, in half of Pillow's time.
"""

import importlib.util
from typing import cast

import numpy as np
from numpy.typing import NDArray

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
