"""Tar shards as a source: an index says where each image lies; images are read at random, and nothing is extracted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from vitlab.data.block_cache import BlockCache
from vitlab.data.decoding import MAX_BYTES, refuse
from vitlab.data.sources import LabelledSource, Sample, TrainOrTest, check_classes, fingerprint, split_by_name
from vitlab.errors import UserError
from vitlab.shards.remote import RemoteFile
from vitlab.shards.tar import BLOCK, header_size

MAX_LABEL = 10**7


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class ShardIndex:
    """The images of one shard, in the archive's order.

    Attributes:
        shard_bytes: the tar's size; another size means that the index is not this tar's.
        classes: class names by label, or None where the shard came from elsewhere and names none.
        names: each image's member name.
        offsets, sizes: where its bytes start in the tar, and how many they are.
        labels: its class.
    """

    shard_bytes: int
    classes: tuple[str, ...] | None
    names: tuple[str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    format: Literal["vitlab-shard-index"] = "vitlab-shard-index"
    version: Literal[1] = 1


_ADAPTER = TypeAdapter(ShardIndex)


def index_path(shard: Path) -> Path:
    """Where a shard's index lies: `train-000.tar` has `train-000.index.json`."""
    return shard.with_suffix(".index.json")


def to_json(index: ShardIndex) -> str:
    """The index as one line of JSON."""
    return _ADAPTER.dump_json(index).decode() + "\n"


def from_json(text: bytes, name: str) -> ShardIndex:
    """An index from untrusted JSON.

    Raises:
        UserError: it is damaged or of another version.
    """
    try:
        index = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise UserError(f"{name}: this is not a shard index of version 1; remove it, and it is made again") from error
    count = len(index.names)
    limits = all(
        BLOCK <= offset <= index.shard_bytes - size and 0 < size <= MAX_BYTES
        for offset, size in zip(index.offsets, index.sizes, strict=False)
    )
    known = MAX_LABEL if index.classes is None else len(index.classes)
    labels = all(0 <= label < known for label in index.labels)
    if not (0 < count == len(index.offsets) == len(index.sizes) == len(index.labels) and limits and labels):
        raise UserError(f"{name}: this shard index is inconsistent; remove it, and it is made again")
    return index


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar shard: its index, and its bytes where they are not those of the file at `path`.

    `content` holds them in memory; `remote` reads them from a URL, through `cache` where there is one.
    """

    path: Path
    index: ShardIndex
    content: bytes | None = None
    remote: RemoteFile | None = None
    cache: BlockCache | None = None

    def __str__(self) -> str:
        return str(self.path) if self.remote is None else self.remote.url

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end. The file is opened each time, so few descriptors are in use."""
        if self.content is not None:
            return self.content[offset : offset + size]
        if self.remote is not None and self.cache is not None:
            return self.cache.read(self.remote.url, self.remote.size, self.remote.read_range, offset, size)
        if self.remote is not None:
            return self.remote.read_range(offset, size)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, eq=False)
class ShardSource(LabelledSource):
    """Samples of tar shards; see `sources.Source`. `places` holds (shard, row of its index) of each sample."""

    shards: tuple[Shard, ...]
    places: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The shard's and the member's name; see `sources.Source.key`."""
        number, row = self.places[index].tolist()
        shard = self.shards[number]
        return f"{shard.path.name}/{shard.index.names[row]}"

    def read(self, index: int) -> Sample:
        """The sample at `index`; see `sources.Source.read`. The member's header is checked against the index."""
        number, row = self.places[index].tolist()
        shard = self.shards[number]
        offset, size = shard.index.offsets[row], shard.index.sizes[row]
        name = f"{shard}: {shard.index.names[row]}"
        try:
            found = shard.read_range(offset - BLOCK, BLOCK + size)
        except OSError as error:
            raise refuse(name, f"it cannot be read ({error.strerror})") from error
        if len(found) != BLOCK + size or header_size(found[:BLOCK]) not in (size, 0):
            advice = f"remove {index_path(shard.path).name}" if shard.remote is None else "start again"
            raise UserError(f"{name}: the shard changed after it was indexed; {advice}")
        return Sample(found[BLOCK:], int(self.labels_N[index]), name)

    @property
    def shards_N(self) -> NDArray[np.int64]:  # noqa: N802
        """The shard of each sample; see `sources.Source.shards_N`."""
        return self.places[:, 0]

    def with_block_cache(self, cache: BlockCache) -> "ShardSource":
        """The same samples; see `sources.Source.with_block_cache`."""
        return replace(self, shards=tuple(replace(shard, cache=cache) for shard in self.shards))


def shard_source(
    shards: Sequence[Shard], name: str, *,
    classes: tuple[str, ...] | None = None, split: TrainOrTest | None = None, skipped: Sequence[str] = (),
) -> ShardSource:  # fmt: skip
    """One source from shards.

    Args:
        shards: at least one.
        name: what the source is called.
        classes: the training side's; None takes the shards' own, or numbers where they name none.
        split: the wanted side of a fixed 80 / 20 split (see `sources.split_by_name`); None takes every
            sample.
        skipped: what was left out when they were indexed, one line each.

    Raises:
        UserError: the shards name different classes, or a label beyond them; fewer than two classes.
    """
    classes = _common_classes(shards, name, classes)
    rows = [(number, row) for number, shard in enumerate(shards) for row in range(len(shard.index.names))]
    labels = [label for shard in shards for label in shard.index.labels]
    keys = [f"{shard.path.name}/{member}" for shard in shards for member in shard.index.names]
    sizes = [size for shard in shards for size in shard.index.sizes]
    kept = list(range(len(rows))) if split is None else split_by_name(keys, labels, split)
    check_classes(name, classes)
    if not kept:
        raise UserError(f"{name}: {len(rows)} images are too few to split; give two or more per class")
    name = name if split is None else f"{name} ({split} split)"
    digest = fingerprint(classes, ((keys[i], sizes[i], labels[i]) for i in kept))
    labels_N, places = np.array(labels, np.int64)[kept], np.array(rows, np.int64)[kept]
    return ShardSource(name, classes, labels_N, digest, tuple(shards), places, tuple(skipped))


def _common_classes(shards: Sequence[Shard], name: str, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    for shard in shards:
        own = shard.index.classes
        if own is not None and classes is not None and own != classes:
            raise UserError(f"{shard}: its classes differ from those of the other shards; pack them together")
        classes = classes or own
    highest = [(max(shard.index.labels), shard) for shard in shards]
    if classes is None:
        return tuple(map(str, range(max(label for label, _ in highest) + 1)))
    for label, shard in highest:
        if label >= len(classes):
            raise UserError(f"{shard}: its label {label} is not one of the {len(classes)} training classes of {name}")
    return classes
