"""What a checkpoint is on disk: safetensors files, and a JSON manifest that is written last.

A checkpoint is a folder `step-N` that is complete or absent: it is written under a temporary name, every file is
forced to the disk, and the folder is renamed into place. No pickle is read or written.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from vitlab import files
from vitlab.errors import UserError

VERSION = 3
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**28
CHUNK = 2**24
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}


def folder_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates is."""
    return checkpoints / f"step-{step:08d}"


def aside_of(checkpoints: Path, step: int) -> Path:
    """Where it is while all processes write it."""
    return checkpoints / f".step-{step:08d}.part"


def newest_first(checkpoints: Path) -> list[Path]:
    """All checkpoints of a run."""
    return sorted((path for path in checkpoints.glob("step-*") if path.is_dir()), reverse=True)


def remove_debris(checkpoints: Path) -> None:
    """Remove what a killed process left half-written; nothing else may be writing."""
    for path in checkpoints.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write host tensors as a safetensors file, forced to the disk, without a second copy of them in memory.

    Returns:
        The file's size and SHA-256, for the manifest.
    """
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for data in _pieces_of_file(tensors):
            digest.update(data)
            size += len(data)
            while data:
                data = data[os.write(descriptor, data[:CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _pieces_of_file(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    header: dict[str, Any] = {}
    end = 0
    # Wider numbers first, so that all are aligned, as readers of the format prefer.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        if tensor.numel():
            yield memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def commit(checkpoints: Path, step: int, manifest: Mapping[str, Any]) -> Path:
    """Finish the temporary folder and rename it into place; an older one there is replaced."""
    aside, final = aside_of(checkpoints, step), folder_of(checkpoints, step)
    with (aside / MANIFEST).open("wb") as file:
        file.write(json.dumps(manifest, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
    files.sync(aside)
    old = checkpoints / f".{final.name}.old"
    if final.exists():
        # A damaged one: it was skipped when this run began, or this step would not have been made again.
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    aside.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    files.sync(checkpoints)
    return final


def drop_old(checkpoints: Path, keep: int, spared: Iterable[int]) -> None:
    """Remove all but the newest `keep` checkpoints and those of the steps in `spared`."""
    kept = {folder_of(checkpoints, step) for step in spared}
    for old in newest_first(checkpoints)[keep:]:
        if old not in kept:
            # Renamed first: a checkpoint is never seen half-removed.
            gone = checkpoints / f".{old.name}.old"
            old.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        UserError: it is of another version of the format.
        ValueError, OSError, KeyError: it is not readable.
    """
    path = folder / MANIFEST
    if path.stat().st_size > LARGEST_MANIFEST:
        raise ValueError(f"{MANIFEST} is too large")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST} is not an object")
    if manifest["version"] != VERSION:
        raise UserError(f"checkpoint {folder} is of version {manifest['version']}; this vitlab reads version {VERSION}")
    if not all(isinstance(manifest[key], dict) for key in ("files", "progress")):
        raise ValueError(f"{MANIFEST} is damaged")
    return manifest


def check_file(path: Path, entry: Mapping[str, Any]) -> None:
    """Raise ValueError or OSError if a file is not the one that was written."""
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes, not {entry['bytes']}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            raise ValueError(f"{path.name} does not have its recorded hash")


class StoredTensors:
    """Tensors of one kind by name, in one file or in shards over several."""

    def __init__(self, folder: Path, kind: str, entries: Mapping[str, Any]) -> None:
        self._files: list[tuple[Any, Mapping[str, Any]]] = [
            (safe_open(folder / Path(name).name, framework="pt"), entry["pieces"])
            for name, entry in entries.items()
            if entry["kind"] == kind
        ]
        self.shapes: dict[str, tuple[int, ...]] = {}
        for file, shards in self._files:
            for name in file.keys():  # noqa: SIM118 - a file of tensors is no mapping
                shape = tuple(file.get_slice(name).get_shape())
                self.shapes[name] = (int(shards[name][1]), *shape[1:]) if name in shards else shape

    def read(self, name: str, first: int, rows: int) -> Tensor:
        """Rows first .. first + rows - 1 of a full tensor of one or more dimensions; a scalar is returned unchanged."""
        parts = []
        for file, shards in self._files:
            if name not in file.keys():  # noqa: SIM118
                continue
            stored = file.get_slice(name)
            shape = stored.get_shape()
            if not shape:
                scalar: Tensor = file.get_tensor(name)
                return scalar
            begin = int(shards[name][0]) if name in shards else 0
            low, high = max(first, begin), min(first + rows, begin + shape[0])
            if low < high:
                parts.append((low, stored[low - begin : high - begin]))
        found = [part for _, part in sorted(parts, key=lambda item: item[0])]
        if sum(len(part) for part in found) != rows:
            raise ValueError(f"rows of {name} are missing")
        return torch.cat(found) if found else torch.empty(0)
