"""NumPy archives: a zip file of arrays, each with its own header; never `numpy.load`, never an object array."""

import ast
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import torch

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import Declared, TensorFile, as_float32, check_declared, check_expansion, shown
from vitlab.weights.readers.zips import entries_of

MAGIC = b"\x93NUMPY"
# Bytes of the header's own length, by version of NumPy's array format.
LENGTHS = {(1, 0): 2, (2, 0): 4}
MOST_HEADER_BYTES = 10_000
# bfloat16 has no NumPy type of its own: JAX's checkpoints hold it as two raw bytes.
RAW_BFLOAT16 = np.dtype("V2")
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    MemoryError,
    RecursionError,
    RuntimeError,
    NotImplementedError,
    Warning,
)


def open_npz(path: Path) -> TensorFile:
    """Read the header of every array.

    Raises:
        UserError: truncated or damaged, an object array, or sizes that do not agree with the file's.
    """
    where = str(path)
    entries = {entry.filename.removesuffix(".npy"): entry for entry in entries_of(path)}
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("error")  # types that NumPy has deprecated
            for name, entry in entries.items():
                with archive.open(entry) as member:
                    headers[name] = _header(where, name, member, entry.file_size)
    except UserError:
        raise
    except DAMAGE as error:
        raise _damaged(where, error) from error
    arrays = {name: Declared(shape, _type_name(dtype)) for name, (shape, dtype, _) in headers.items()}
    check_expansion(where, arrays, path.stat().st_size)

    def read(name: str) -> torch.Tensor:
        shape, dtype, fortran = headers[name]
        try:
            with zipfile.ZipFile(path) as archive, archive.open(entries[name]) as member:
                _header_text(member)
                data = member.read()
        except DAMAGE as error:
            raise _damaged(where, error) from error
        return as_float32(_array(data, shape, dtype, fortran=fortran))

    return TensorFile(where, "npz archive", arrays, read)


def _header(where: str, name: str, member: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype, bool]:
    text = _header_text(member)
    # A literal of constants; NumPy's own reader also tries to repair headers that Python 2 wrote.
    header = ast.literal_eval(text)
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("a header without type, order and shape")
    dtype = np.dtype(header["descr"])
    if dtype.hasobject:
        raise UserError(
            f"{where}: array '{shown(name)}' holds Python objects (pickle), which are never read; "
            "save plain float32 arrays"
        )
    shape = check_declared(where, name, tuple(header["shape"]))
    if math.prod(shape) * dtype.itemsize != size - member.tell():
        raise UserError(
            f"{where}: array '{shown(name)}' declares another size than the archive holds; download it again"
        )
    return shape, dtype, bool(header["fortran_order"])


def _header_text(member: IO[bytes]) -> str:
    """The header of an array, and `member` moved to its numbers."""
    start = member.read(len(MAGIC) + 2)
    version = tuple(start[len(MAGIC) :])
    if not start.startswith(MAGIC) or version not in LENGTHS:
        raise ValueError("no array of NumPy's")
    length = int.from_bytes(member.read(LENGTHS[version]), "little")
    if length > MOST_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    return member.read(length).decode("latin-1")


def _array(data: bytes, shape: tuple[int, ...], dtype: np.dtype, *, fortran: bool) -> torch.Tensor:
    if dtype == RAW_BFLOAT16:
        flat = torch.frombuffer(bytearray(data), dtype=torch.bfloat16) if data else torch.empty(0)
    else:
        native = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))
        flat = torch.from_numpy(native)
    return flat.reshape(shape[::-1]).permute(*range(len(shape))[::-1]) if fortran else flat.reshape(shape)


def _type_name(dtype: np.dtype) -> str:
    return "bfloat16" if dtype == RAW_BFLOAT16 else dtype.name


def _damaged(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: a truncated or damaged npz archive ({shown(str(error))}); download it again")
