"""Text and MATLAB files that come with data sets: bounded in size, their file names kept inside the folder.

MATLAB files of version 5 (Flowers-102, SVHN) are read without scipy, plain numeric arrays only. Layout: MathWorks,
"MAT-File Format" (level 5): a header of 128 bytes, then tagged elements; a matrix is an element that consists of flags,
sizes, name and values; zlib may wrap a matrix.
"""

import csv
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.errors import UserError

MAX_BYTES = 2**30
MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC_CLASSES = range(6, 16)  # double, single, and the integers; cells, structs, objects and text are passed over


def read_text(path: Path) -> str:
    """A text file as UTF-8.

    Raises:
        UserError: it is missing, unreadable, no UTF-8, or larger than 1 GiB.
    """
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: this is not UTF-8 text; download the data set again") from error


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes are more than the {MAX_BYTES:,} that are read")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error


def read_rows(path: Path, columns: int) -> list[list[str]]:
    """The words of each line that is not empty or a comment (#).

    Args:
        path: the file.
        columns: the least number of words per line.

    Raises:
        UserError: it cannot be read, or a line has fewer words.
    """
    rows = [line.split() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    for number, row in enumerate(rows, 1):
        if len(row) < columns:
            raise UserError(f"{path}: row {number} has {len(row)} of {columns} columns; download the data set again")
    return rows


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        UserError: it cannot be read, or lacks one of `columns`.
    """
    reader = csv.DictReader(read_text(path).splitlines())
    found = reader.fieldnames or []
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(f"{path}: there is no column '{missing[0]}'; its columns are {', '.join(found) or 'none'}")
    try:
        return [{column: row[column] or "" for column in columns} for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: this is not a CSV file ({error}); download the data set again") from error


def read_json(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: this is not a JSON file ({type(error).__name__}); download the data set again"
        ) from error


def no_split(folder: Path, split: str) -> UserError:
    """The error for an official split that a data set does not have."""
    return UserError(f"{folder}: this data set has no {split} split")


def numbered(count: int) -> tuple[str, ...]:
    """The names of classes that have numbers only: 0 to count - 1."""
    return tuple(map(str, range(count)))


def number(text: str, path: Path, row: int) -> int:
    """A whole number >= 0 in a listing.

    Raises:
        UserError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{path}: row {row} has {text[:40]!r} where a whole number from 0 is needed")
    return int(text)


def inside(folder: Path, name: str, listing: Path) -> Path:
    """A file that a listing names, below `folder`.

    Raises:
        UserError: the name leads out of the folder.
    """
    parts = PurePosixPath(name.lstrip("/")).parts
    if not parts or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(f"{listing}: the file name {name[:80]!r} leads out of the data set; do not trust it")
    return folder.joinpath(*parts)


def read_mat(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[np.generic]]:
    """The named numeric arrays of a file, in MATLAB's index order.

    Raises:
        UserError: it is missing, of another version, damaged, larger than 1 GiB, or lacks one of them.
    """
    content = _read(path)
    if len(content) < 128 or content[124:128] != b"\x00\x01IM":
        raise UserError(f"{path}: this is not a little-endian MATLAB file of version 5; download the data set again")
    found: dict[str, NDArray[np.generic]] = {}
    try:
        for kind, body in _elements(memoryview(content)[128:]):
            matrix = _inflated(body) if kind == COMPRESSED else body if kind == MATRIX else None
            if matrix is not None:
                found |= _array(matrix, names)
    except (zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{path}: this MATLAB file is damaged ({error}); download the data set again") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{path}: there is no array '{missing[0]}' in it; download the data set again")
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
            raise ValueError(f"an element of {size:,} bytes does not fit")
        yield kind, data[start : start + size]
        position = stop


def _inflated(body: memoryview) -> memoryview:
    """The body of the matrix inside a compressed element."""
    engine = zlib.decompressobj()
    content = engine.decompress(body, MAX_BYTES)
    if engine.unconsumed_tail:
        raise ValueError(f"an array of more than {MAX_BYTES:,} bytes")
    for kind, inner in _elements(memoryview(content)):
        if kind == MATRIX:
            return inner
    raise ValueError("no array in a compressed element")


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
        raise ValueError(f"'{name}' holds {len(values):,} values, not {' x '.join(map(str, shape))}")
    return {name: values.reshape(shape, order="F")}
