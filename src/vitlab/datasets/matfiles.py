"""Numbers from MATLAB files of version 5 (Flowers-102, SVHN), without scipy: plain arrays only, bounded in size.

Layout: MathWorks, "MAT-File Format" (level 5): a header of 128 bytes, then tagged elements; a matrix is an element
whose parts are flags, sizes, name and values; zlib may wrap a matrix.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.errors import UserError

MAX_BYTES = 2**30
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single, and the integers; cells, structs, objects and text are passed over


class _DamagedError(Exception):
    pass


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """The named numeric arrays of a file, in MATLAB's index order.

    Raises:
        UserError: it is missing, of another version, damaged, larger than 1 GiB, or lacks one of them.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes are more than the {MAX_BYTES:,} that are read")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    if len(content) < 128 or content[124:128] != b"\x00\x01IM":
        raise UserError(f"{path}: this is no little-endian MATLAB file of version 5; get the data set again")
    found: dict[str, NDArray[np.generic]] = {}
    try:
        for kind, body in _elements(memoryview(content)[128:]):
            matrix = _inflated(body) if kind == COMPRESSED else body if kind == MATRIX else None
            if matrix is not None:
                found |= _array(matrix, names)
    except (_DamagedError, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{path}: this MATLAB file is damaged ({error}); get the data set again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path}: there is no array '{missing[0]}' in it; get the data set again")
    return found


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Each element's type and body."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        if kind >> 16:  # a small element: its size is in the upper half, its body in the place of the size
            kind, size, start, stop = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start = position + 8
            stop = start + (size if kind == COMPRESSED else -(-size // 8) * 8)
        if start + size > min(stop, len(data)):
            raise _DamagedError(f"an element of {size:,} bytes does not fit")
        yield kind, data[start : start + size]
        position = stop


def _inflated(body: memoryview) -> memoryview:
    """The body of the matrix inside a compressed element."""
    engine = zlib.decompressobj()
    content = engine.decompress(body, MAX_BYTES)
    if engine.unconsumed_tail:
        raise _DamagedError(f"an array of more than {MAX_BYTES:,} bytes")
    for kind, inner in _elements(memoryview(content)):
        if kind == MATRIX:
            return inner
    raise _DamagedError("no array in a compressed element")


def _array(matrix: memoryview, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """The array of a matrix element under its name, if it is a wanted one of plain numbers."""
    parts = list(_elements(matrix))
    if len(parts) < 4 or len(parts[0][1]) < 4 or parts[1][0] != 5:
        return {}
    flags = struct.unpack_from("<I", parts[0][1])[0]
    shape = np.frombuffer(parts[1][1], "<i4").tolist()
    name = bytes(parts[2][1]).decode("ascii", "replace")
    kind, body = parts[3]
    if name not in names or flags & 0xFF not in NUMERIC_CLASSES or flags & 0x800 or kind not in STORED:
        return {}
    values = np.frombuffer(body, f"<{STORED[kind]}")
    if any(length < 0 for length in shape) or int(np.prod(shape, dtype=object)) != len(values):
        raise _DamagedError(f"'{name}' holds {len(values):,} values, not {' x '.join(map(str, shape))}")
    return {name: values.reshape(shape, order="F")}
