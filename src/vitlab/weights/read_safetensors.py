"""Safetensors files: a length, a JSON header that declares every array, then the bytes."""

import struct
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from vitlab.errors import UserError
from vitlab.weights.tensors import MOST_ARRAYS, Declared, TensorFile, as_float32, check_declared, shown

MOST_HEADER_BYTES = 16 * 2**20
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `head` is meant as safetensors."""
    return len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40 and size >= 9


def open_safetensors(path: Path) -> TensorFile:
    """Read the header; the library checks that offsets, shapes and the file's length agree.

    Raises:
        UserError: truncated, damaged, or with a header no model needs.
    """
    where = str(path)
    with path.open("rb") as file:
        head = file.read(8)
    length = struct.unpack("<Q", head)[0]
    if length > MOST_HEADER_BYTES:
        raise UserError(
            f"{where}: the safetensors header claims {length} bytes, at most {MOST_HEADER_BYTES} are read"
        )
    try:
        arrays = _declared(path)
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        reason = shown(str(error))
        raise UserError(
            f"{where}: a truncated or damaged safetensors file ({reason}); get it again"
        ) from error

    def read(name: str) -> torch.Tensor:
        try:
            with safe_open(where, framework="pt") as opened:
                # Copied: the library's tensor is a view of the mapped file, which may change under the model.
                return as_float32(where, name, opened.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{where}: array '{shown(name)}' cannot be read ({shown(str(error))})") from error

    return TensorFile(where, "safetensors file", arrays, read)


def _declared(path: Path) -> dict[str, Declared]:
    with safe_open(str(path), framework="pt") as opened:
        names = list(opened.keys())
        if len(names) > MOST_ARRAYS:
            raise UserError(f"{path}: declares {len(names)} arrays, no model has more than {MOST_ARRAYS}")
        arrays = {}
        for name in names:
            declared = opened.get_slice(name)
            kind = declared.get_dtype()
            arrays[name] = Declared(
                check_declared(str(path), name, declared.get_shape()), TYPES.get(kind, kind)
            )
        return arrays
