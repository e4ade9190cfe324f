"""Safetensors files: a length, a JSON header that declares every array, then the bytes."""

import io
import json
import math
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import (
    MOST_ARRAYS,
    TORCH_TYPES,
    Declared,
    TensorFile,
    as_float32,
    check_declared,
    item_bytes,
    shown,
)

MOST_HEADER_BYTES = 16 * 2**20
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
    "BOOL": "bool",
}


def looks_like(head: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that starts with `head` is meant as safetensors."""
    return len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < 2**40 and size >= 9


def open_safetensors(path: Path) -> TensorFile:
    """Read the header, once the library has checked that it, the arrays' sizes and the file's length agree.

    Raises:
        UserError: truncated, damaged, or with a header no model needs.
    """
    where = str(path)
    start, header = _header(path)
    if len(header) > MOST_ARRAYS:
        raise UserError(f"{where}: declares {len(header)} arrays, no model has more than {MOST_ARRAYS}")
    arrays = {
        name: Declared(check_declared(where, name, entry["shape"]), TYPES.get(entry["dtype"], shown(entry["dtype"])))
        for name, entry in header.items()
    }

    for name, array in arrays.items():
        first, last = header[name]["data_offsets"]
        if array.dtype in TORCH_TYPES and last - first != math.prod(array.shape) * item_bytes(array.dtype):
            raise UserError(f"{where}: array '{shown(name)}' declares another size than it has; download it again")

    def read(name: str) -> torch.Tensor:
        first, last = header[name]["data_offsets"]
        # Read, not mapped: a mapped array would change or vanish with the file. Straight into the array's own memory,
        # without a buffer between.
        values = torch.empty(last - first, dtype=torch.uint8)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start + first)
                held = _read_into(file, values.numpy().data)
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({error.strerror})") from error
        if held != len(values):
            raise UserError(f"{where}: got shorter while it was read; download it again")
        return as_float32(values.view(TORCH_TYPES[arrays[name].dtype]).reshape(arrays[name].shape))

    return TensorFile(where, "safetensors file", arrays, read)


def _read_into(file: io.FileIO, data: memoryview) -> int:
    """How many bytes were read until `data` was full, or the file at its end: one call reads 2 GiB at most."""
    held = 0
    while held < len(data):
        count = file.readinto(data[held:])
        if not count:
            break
        held += count
    return held


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the bytes of the arrays start, and the header without its free text."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > MOST_HEADER_BYTES:
            raise UserError(
                f"{path}: the safetensors header claims {length} bytes, at most {MOST_HEADER_BYTES} are read; "
                "download it again"
            )
        try:
            with safe_open(str(path), framework="pt"):
                header = json.loads(file.read(length))
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            reason = shown(str(error))
            raise UserError(f"{path}: a truncated or damaged safetensors file ({reason}); download it again") from error
    header.pop("__metadata__", None)
    return 8 + length, header
