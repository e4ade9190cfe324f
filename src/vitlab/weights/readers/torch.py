"""PyTorch's .pt and .pth files: a zip with one pickle that names storages, and one entry per storage.

Nothing is unpickled: `pickles.outline` follows the pickle on plain values, what it declares is compared with the zip's
directory, and the numbers are read from the storages' own entries. That is stricter than
`torch.load(weights_only=True)`, which allocates what a file asks for, and it needs no second copy of the weights.
"""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch

from vitlab.errors import UserError
from vitlab.weights.readers.pickles import MOST_PICKLE_BYTES, TensorOutline, outline
from vitlab.weights.readers.tensors import (
    TORCH_TYPES,
    Declared,
    TensorFile,
    as_float32,
    check_declared,
    check_expansion,
    shown,
)
from vitlab.weights.readers.zips import entries_of

# Where the weights are among a checkpoint's other values: DINO trains a teacher, DeiT and MAE save under "model".
HOLDERS = ("teacher", "model", "state_dict", "model_state_dict", "module", "student")
MOST_NESTING = 4


PICKLE = "data.pkl"


def is_torch(path: Path) -> bool:
    """Whether a zip file is laid out as `torch.save` does."""
    return any(entry.filename.split("/")[-1] == PICKLE for entry in entries_of(path))


def open_torch(path: Path) -> TensorFile:
    """Read the outline of a file made by `torch.save`.

    Raises:
        UserError: truncated or damaged, code in the pickle, compressed entries, or sizes that do not agree.
    """
    where = str(path)
    entries = {entry.filename: entry for entry in entries_of(path)}
    compressed = [name for name, entry in entries.items() if entry.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise UserError(f"{where}: entry '{shown(compressed[0])}' is compressed, which torch.save never does")
    root = _root(where, entries)
    order = entries.get(f"{root}byteorder")
    if order is not None and order.file_size < 16 and _entry(path, order) != b"little":
        raise UserError(f"{where}: was written on a big-endian machine; save it as safetensors there")
    tensors = _weights(where, outline(where, _pickle(path, entries[root + PICKLE])))
    for name, tensor in tensors.items():
        _check_storage(where, name, tensor, entries.get(f"{root}data/{tensor.storage.key}"))
    arrays = {
        name: Declared(check_declared(where, name, tensor.shape), tensor.storage.dtype)
        for name, tensor in tensors.items()
    }
    check_expansion(where, arrays, path.stat().st_size)

    def read(name: str) -> torch.Tensor:
        tensor = tensors[name]
        data = bytearray(_entry(path, entries[f"{root}data/{tensor.storage.key}"]))
        flat = torch.frombuffer(data, dtype=TORCH_TYPES[tensor.storage.dtype]) if data else torch.empty(0)
        return as_float32(flat.as_strided(tensor.shape, tensor.stride, tensor.offset))

    return TensorFile(where, "PyTorch file", arrays, read)


def _root(where: str, entries: Mapping[str, zipfile.ZipInfo]) -> str:
    roots = [name.removesuffix(PICKLE) for name in entries if name.endswith("/" + PICKLE) or name == PICKLE]
    if len(roots) != 1:
        raise UserError(f"{where}: holds {len(roots)} pickles named {PICKLE}, torch.save writes one")
    return roots[0]


def _pickle(path: Path, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > MOST_PICKLE_BYTES:
        raise UserError(
            f"{path}: its pickle has {entry.file_size} bytes, at most {MOST_PICKLE_BYTES} are read; "
            "save the state_dict alone"
        )
    return _entry(path, entry)


def _entry(path: Path, entry: zipfile.ZipInfo) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path}: a truncated or damaged PyTorch file ({shown(str(error))}); download it again"
        ) from error


def _weights(where: str, value: object) -> dict[str, TensorOutline]:
    """The dictionary of weights inside a checkpoint."""
    nesting = 0
    while isinstance(value, dict):
        tensors = {key: item for key, item in value.items() if isinstance(item, TensorOutline)}
        inner = next((key for key in HOLDERS if isinstance(value.get(key), dict)), None)
        if inner is not None and nesting < MOST_NESTING:
            nesting, value = nesting + 1, value[inner]
        elif tensors and all(isinstance(key, str) for key in tensors):
            return tensors
        else:
            break
    raise UserError(f"{where}: holds no dictionary of weights; expected one, or one under {', '.join(HOLDERS)}")


def _check_storage(where: str, name: str, tensor: TensorOutline, entry: zipfile.ZipInfo | None) -> None:
    """What the pickle says of a tensor must be what the zip's directory says of its storage."""
    storage = tensor.storage
    numbers = (tensor.offset, storage.elements, *tensor.shape, *tensor.stride)
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
    if entry is None or not whole or len(tensor.shape) != len(tensor.stride):
        raise UserError(f"{where}: array '{shown(name)}' has no numbers in the file; download it again")
    item = TORCH_TYPES[storage.dtype].itemsize if storage.dtype in TORCH_TYPES else None
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
    outside = 0 not in tensor.shape and last >= storage.elements
    if outside or (item is not None and storage.elements * item != entry.file_size):
        raise UserError(
            f"{where}: array '{shown(name)}' declares {math.prod(tensor.shape)} numbers of a storage of "
            f"{storage.elements}, its entry has {entry.file_size} bytes; download it again"
        )
