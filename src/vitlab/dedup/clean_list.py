"""A clean list: which samples of a data set to leave out. It is written by `vitlab dedup` and read by training."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vitlab.data.sources import Source, select
from vitlab.errors import UserError
from vitlab.files import write_bytes

FORMAT = "vitlab clean list"
MAX_BYTES = 2**30


class CleanList(BaseModel):
    """What the file holds.

    Attributes:
        source, fingerprint, images: the data set that it was made for.
        reason: how the samples were chosen: test sets with their fingerprints, thresholds.
        removed: (index, key) of each sample to leave out, in order.
        sha256: of everything else in the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["vitlab clean list"]
    version: Literal[1]
    source: str
    fingerprint: str
    images: int
    reason: dict[str, Any]
    removed: list[tuple[Annotated[int, Field(ge=0)], str]]
    sha256: str


def write_clean_list(path: Path, source: Source, removed: Iterable[int], reason: dict[str, Any]) -> None:
    """Writes which samples of `source` to leave out; the same bytes for the same arguments.

    Args:
        path: the JSON file.
        source: the data set.
        removed: indices into it.
        reason: a JSON object that says why they were chosen.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": 1,
        "source": _text(source.name),
        "fingerprint": source.fingerprint,
        "images": len(source),
        "reason": reason,
        "removed": [[index, _text(source.key(index))] for index in sorted(set(removed))],
    }
    write_bytes(path, (json.dumps(content | {"sha256": _digest(content)}, indent=1) + "\n").encode())


def read_clean_list(path: Path) -> CleanList:
    """Reads and checks a clean list.

    Raises:
        UserError: it is missing, not a clean list of this version, or changed since it was written.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"{path}: this clean list cannot be read ({error.strerror}); `vitlab dedup` writes one"
        ) from error
    try:
        if len(data) > MAX_BYTES:
            raise ValueError("too large")
        content = json.loads(data)
        clean = CleanList.model_validate_json(data)
    except (ValidationError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: this is not a clean list of version 1; `vitlab dedup` writes one") from error
    del content["sha256"]
    if _digest(content) != clean.sha256:
        raise UserError(f"{path}: this clean list was changed after it was written; run `vitlab dedup` again")
    return clean


def without(source: Source, path: Path | str) -> Source:
    """A source without the samples that a clean list removes; the same source where it removes nothing.

    Its fingerprint differs from the full source's, so that a checkpoint of one is not mistaken for the other's.

    Raises:
        UserError: the clean list is unreadable or another data set's, or it removes everything.
    """
    clean = read_clean_list(Path(path))
    if clean.fingerprint != source.fingerprint or clean.images != len(source):
        raise UserError(
            f"{path}: this clean list was made for {clean.source} ({clean.images:,} images, {clean.fingerprint[:12]}), "
            f"not for {source.name} ({len(source):,} images, {source.fingerprint[:12]}); run `vitlab dedup` on it"
        )
    for index, key in clean.removed:
        if index >= len(source) or _text(source.key(index)) != key:
            raise UserError(f"{path}: sample {index} of {source.name} is not {key}; run `vitlab dedup` again")
    if not clean.removed:
        return source
    kept = np.ones(len(source), np.bool_)
    kept[[index for index, _ in clean.removed]] = False
    if not kept.any():
        raise UserError(f"{path}: this clean list removes every image of {source.name}; nothing is left to train on")
    name = f"{source.name} without {len(source) - int(kept.sum()):,} listed images"
    return select(name, [(source, np.flatnonzero(kept).tolist())])


def _text(name: str) -> str:
    """A name as valid Unicode: those of files need not be."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
