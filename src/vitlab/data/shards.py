"""Tar shards: packs a source into them, and reads their images at random without ever extracting."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.index import ShardIndex, index_path, index_shard, scan, to_json
from vitlab.data.pillow import refuse
from vitlab.data.sources import Sample, Source, Split, check_classes, fingerprint, split_by_name
from vitlab.data.tars import BLOCK, Reader, header_size
from vitlab.errors import UserError
from vitlab.files import write_bytes, write_text

SHARD_SAMPLES = 10_000
SHARD_BYTES = 128 * 2**20  # a shard is built in memory, so that it is written whole or not at all
MAGICS = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"RIFF", "webp"),
    (b"II", "tif"),
    (b"MM", "tif"),
)


@dataclass(frozen=True, eq=False)
class Shard:
    """One tar shard: its index, and its bytes where they are held in memory instead of at `path`."""

    path: Path
    index: ShardIndex
    content: bytes | None = None

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end. The file is opened anew, so few descriptors are in use."""
        if self.content is not None:
            return self.content[offset : offset + size]
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True, eq=False)
class ShardSource:
    """Samples of tar shards; see `sources.Source`. `places` holds (shard, row of its index) of each sample."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    shards: tuple[Shard, ...]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels_N)

    def read(self, index: int) -> Sample:
        """The sample at `index`; see `sources.Source.read`. The member's header is checked against the index."""
        number, row = self.places[index].tolist()
        shard = self.shards[number]
        offset, size = shard.index.offsets[row], shard.index.sizes[row]
        name = f"{shard.path}: {shard.index.names[row]}"
        try:
            found = shard.read_range(offset - BLOCK, BLOCK + size)
        except OSError as error:
            raise refuse(name, f"it cannot be read ({error.strerror})") from error
        if len(found) != BLOCK + size or header_size(found[:BLOCK]) not in (size, 0):
            raise UserError(f"{name}: the shard changed after it was indexed; remove {index_path(shard.path).name}")
        return Sample(found[BLOCK:], int(self.labels_N[index]), name)


def shard_source(
    shards: Sequence[Shard], name: str, *, classes: tuple[str, ...] | None = None, split: Split | None = None
) -> ShardSource:
    """One source from shards.

    Args:
        shards: at least one.
        name: what the source is called.
        classes: the training side's; None takes the shards' own, or numbers where they name none.
        split: the wanted side of a fixed 80 / 20 split (see `sources.split_by_name`); None takes every
            sample.

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
    )


def _common_classes(shards: Sequence[Shard], name: str, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    for shard in shards:
        own = shard.index.classes
        if own is not None and classes is not None and own != classes:
            raise UserError(f"{shard.path}: its classes differ from those of the other shards; pack them together")
        classes = classes or own
    highest = [(max(shard.index.labels), shard) for shard in shards]
    if classes is None:
        return tuple(map(str, range(max(label for label, _ in highest) + 1)))
    for label, shard in highest:
        if label >= len(classes):
            raise UserError(f"{shard.path}: its label {label} is none of the {len(classes)} training classes of {name}")
    return classes


def open_shards(
    paths: Sequence[Path], name: str, *, classes: tuple[str, ...] | None = None, split: Split | None = None
) -> ShardSource:
    """A source from tar files on disk, indexing those that have no index yet; see `shard_source`."""
    return shard_source([Shard(path, index_shard(path)) for path in paths], name, classes=classes, split=split)


def tar_bytes(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An uncompressed tar of named files: the same bytes for the same members, whoever packs them and when."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def pack_bytes(samples: Sequence[tuple[str, Sample]], classes: tuple[str, ...]) -> tuple[bytes, ShardIndex]:
    """A shard of keyed samples, in WebDataset's layout, and its index."""
    members = [
        member
        for key, sample in samples
        for member in ((f"{key}.{_suffix(sample)}", sample.data), (f"{key}.cls", str(sample.label).encode()))
    ]
    packed = tar_bytes(members)
    return packed, scan(memory_reader(packed), len(packed), "the new shard", classes)


def _suffix(sample: Sample) -> str:
    for magic, suffix in MAGICS:
        if sample.data.startswith(magic):
            return suffix
    raise refuse(sample.name, "it is not a JPEG, PNG, WebP, GIF, BMP or TIFF image")


def pack(source: Source, folder: Path, split: Split, *, shard_samples: int = SHARD_SAMPLES) -> list[Path]:
    """Packs one side of a data set into `folder`/SPLIT-00000.tar and so on, each with its index beside it.

    The images' bytes are copied as they are. A folder with both sides packed is itself a source.

    Args:
        source: what to pack.
        folder: made if missing.
        split: which side `source` is; names the shards.
        shard_samples: at most so many in a shard; fewer where they would pass 128 MiB.

    Returns:
        The shards' paths.

    Raises:
        UserError: the folder already holds shards of this side, or a sample cannot be read.
    """
    if any(folder.glob(f"{split}-*.tar")):
        raise UserError(f"{folder}: it already holds {split}-*.tar; remove them or name another folder")
    paths: list[Path] = []
    for group in _groups(source, shard_samples):
        path = folder / f"{split}-{len(paths):05d}.tar"
        content, index = pack_bytes(group, source.classes)
        write_bytes(path, content)
        write_text(index_path(path), to_json(index))
        paths.append(path)
    return paths


def _groups(source: Source, shard_samples: int) -> Iterator[list[tuple[str, Sample]]]:
    group: list[tuple[str, Sample]] = []
    size = 0
    for index in range(len(source)):
        sample = source.read(index)
        if group and (len(group) >= shard_samples or size + len(sample.data) > SHARD_BYTES):
            yield group
            group, size = [], 0
        group.append((f"{index:08d}", sample))
        size += len(sample.data) + 4 * BLOCK
    yield group


def memory_reader(content: bytes) -> Reader:
    """A reader of bytes in memory, for `tars.walk` and `index.scan`."""

    def read(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    return read
