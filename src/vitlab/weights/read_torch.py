"""PyTorch's .pt and .pth files: a zip with one pickle that names storages, and one entry per storage.

The pickle is first followed by `pickles.outline`, which makes no object; what it declares is compared with the zip's
directory. Only then `torch.load(weights_only=True)` maps the file.
"""

import argparse
import functools
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitlab.errors import UserError
from vitlab.weights.pickles import MOST_PICKLE_BYTES, TensorOutline, outline
from vitlab.weights.tensors import (
    ITEM_BYTES,
    Declared,
    TensorFile,
    as_float32,
    check_declared,
    check_expansion,
    shown,
)
from vitlab.weights.zips import entries_of

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
    holder, tensors = _weights(where, outline(where, _pickle(path, entries[root + PICKLE])))
    for name, tensor in tensors.items():
        _check_storage(where, name, tensor, entries.get(f"{root}data/{tensor.storage.key}"))
    arrays = {
        name: Declared(check_declared(where, name, tensor.shape), tensor.storage.dtype)
        for name, tensor in tensors.items()
    }
    check_expansion(where, arrays, path.stat().st_size)

    @functools.cache
    def loaded() -> Mapping[str, Any]:
        try:
            # A training checkpoint's arguments are plain values in a Namespace; nothing else is let in.
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch documents no list of what a damaged file raises
            raise UserError(f"{where}: a damaged PyTorch file ({shown(str(error))}); get it again") from error
        for key in holder:
            found = found[key]
        return found  # type: ignore[no-any-return]

    return TensorFile(where, "PyTorch file", arrays, lambda name: as_float32(where, name, loaded()[name]))


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
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(entry)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: a truncated or damaged PyTorch file ({shown(str(error))})") from error


def _weights(where: str, value: object) -> tuple[tuple[str, ...], dict[str, TensorOutline]]:
    """The dictionary of weights inside a checkpoint, and the keys that lead to it."""
    holder: tuple[str, ...] = ()
    while isinstance(value, dict):
        tensors = {key: item for key, item in value.items() if isinstance(item, TensorOutline)}
        inner = next((key for key in HOLDERS if isinstance(value.get(key), dict)), None)
        if inner is not None and len(holder) < MOST_NESTING:
            holder, value = (*holder, inner), value[inner]
        elif tensors and all(isinstance(key, str) for key in tensors):
            return holder, tensors
        else:
            break
    raise UserError(
        f"{where}: holds no dictionary of weights; expected one, or one under {', '.join(HOLDERS)}"
    )


def _check_storage(where: str, name: str, tensor: TensorOutline, entry: zipfile.ZipInfo | None) -> None:
    """What the pickle says of a tensor must be what the zip's directory says of its storage."""
    storage = tensor.storage
    numbers = (tensor.offset, storage.elements, *tensor.shape, *tensor.stride)
    whole = all(
        isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers
    )
    if entry is None or not whole or len(tensor.shape) != len(tensor.stride):
        raise UserError(f"{where}: array '{shown(name)}' has no numbers in the file; get it again")
    item = ITEM_BYTES.get(storage.dtype)
    last = tensor.offset + sum(
        (side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True)
    )
    outside = 0 not in tensor.shape and last >= storage.elements
    if outside or (item is not None and storage.elements * item != entry.file_size):
        raise UserError(
            f"{where}: array '{shown(name)}' declares {math.prod(tensor.shape)} numbers of a storage of "
            f"{storage.elements}, its entry has {entry.file_size} bytes; get the file again"
        )
