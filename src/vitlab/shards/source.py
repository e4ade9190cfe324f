"""Tar shards: reads their images at random without ever extracting."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.block_cache import BlockCache, Reader
from vitlab.data.decoding.pillow import refuse
from vitlab.data.sources import Bad, Sample, TrainOrTest, check_classes, fingerprint, split_by_name
from vitlab.errors import UserError
from vitlab.shards.index import ShardIndex, index_path, index_shard
from vitlab.shards.remote import RemoteFile, find_file, index_remote
from vitlab.shards.tar import BLOCK, header_size


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
        """`size` bytes from `offset`, fewer at the end. The file is opened anew, so few descriptors are in use."""
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
class ShardSource:
    """Samples of tar shards; see `sources.Source`. `places` holds (shard, row of its index) of each sample."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    shards: tuple[Shard, ...]
    places: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

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
            mend = f"remove {index_path(shard.path).name}" if shard.remote is None else "start again"
            raise UserError(f"{name}: the shard changed after it was indexed; {mend}")
        return Sample(found[BLOCK:], int(self.labels_N[index]), name)

    @property
    def shards_N(self) -> NDArray[np.int64]:  # noqa: N802
        """The shard of each sample; see `sources.Source.shards_N`."""
        return self.places[:, 0]

    def with_block_cache(self, cache: BlockCache) -> "ShardSource":
        """The same samples; see `sources.Source.with_block_cache`."""
        return replace(self, shards=tuple(replace(shard, cache=cache) for shard in self.shards))


def shard_source(
    shards: Sequence[Shard],
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    split: TrainOrTest | None = None,
    skipped: Sequence[str] = (),
) -> ShardSource:
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
        raise UserError(f"{name}: {len(rows)} images are too few to split; give two or more of a class")
    return ShardSource(
        name=name if split is None else f"{name} ({split} part)",
        classes=classes,
        labels_N=np.array(labels, np.int64)[kept],
        fingerprint=fingerprint(classes, ((keys[i], sizes[i], labels[i]) for i in kept)),
        shards=tuple(shards),
        places=np.array(rows, np.int64)[kept],
        skipped=tuple(skipped),
    )


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
            raise UserError(f"{shard}: its label {label} is none of the {len(classes)} training classes of {name}")
    return classes


def open_shards(
    paths: Sequence[Path],
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    split: TrainOrTest | None = None,
    bad: Bad = "refuse",
) -> ShardSource:
    """A source from tar files on disk, indexing those that have no index yet; see `shard_source`.

    `bad` says whether a shard that is cut short and a sample that is incomplete are refused, or left out and told in
    `ShardSource.skipped`.
    """
    skipped: list[str] = []
    shards = [Shard(path, index_shard(path, skipped if bad == "skip" else None)) for path in paths]
    return shard_source(shards, name, classes=classes, split=split, skipped=skipped)


def open_remote_shards(
    urls: Sequence[str],
    name: str,
    *,
    classes: tuple[str, ...] | None = None,
    split: TrainOrTest | None = None,
    bad: Bad = "refuse",
) -> ShardSource:
    """A source from tar files behind URLs; see `open_shards` and `remote.index_remote`."""
    skipped: list[str] = []
    found = [find_file(url) for url in urls]
    shards = [
        Shard(Path(file.url.rpartition("/")[2]), index_remote(file, skipped if bad == "skip" else None), remote=file)
        for file in found
    ]
    return shard_source(shards, name, classes=classes, split=split, skipped=skipped)


def memory_reader(content: bytes) -> Reader:
    """A reader of bytes in memory, for `tars.walk` and `index.scan`."""

    def read(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    return read
