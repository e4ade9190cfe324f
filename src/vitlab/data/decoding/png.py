"""Writes grey PNG files without compression: the same bytes on every machine, and nothing to inflate on reading."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def grey_png(image_HW: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG file of an image, its pixels stored as they are.

    Args:
        image_HW: uint8 grey values, height and width >= 1.
    """
    height, width = image_HW.shape
    assert image_HW.dtype == np.uint8
    assert height > 0
    assert width > 0
    lines = np.zeros((height, 1 + width), np.uint8)  # each line starts with its filter's number; 0 is "none"
    lines[:, 1:] = image_HW
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 0)) + _chunk(b"IEND", b"")
    )
