"""What a data set is to the rest of vitlab: images and labels by index, with a fingerprint; and selections of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vitlab.data.block_cache import BlockCache
from vitlab.data.decoding import write_ppm
from vitlab.errors import UserError

TrainOrTest = Literal["train", "test"]
Split = Literal["train", "test", "dev-train", "dev"]  # what a user may ask for; dev-train and dev divide train
Bad = Literal["refuse", "skip"]
TEST_SHARE = 0.2  # of a data set that comes without a split of its own


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        data: the image file's bytes, still encoded; or its pixels, uint8 RGB (height, width, 3), not to be written to.
        label: index into the source's classes.
        name: what to call it in an error: a file, or a shard and a key.
    """

    data: bytes | NDArray[np.uint8]
    label: int
    name: str

    @property
    def encoded(self) -> bytes:
        """The image as a file's bytes; pixels become a binary PPM."""
        return self.data if isinstance(self.data, bytes) else write_ppm(self.data)


class Source(Protocol):
    """Labelled images by index; reading is safe from several threads at once.

    Attributes:
        name: as the user wrote it, with the split.
        classes: class names by label.
        labels_N: (N,) int64 labels, 0 <= label < len(classes).
        shards_N: (N,) int64 number of the shard that each sample lies in; None where samples do not lie in shards.
        fingerprint: SHA-256 over names, sizes and labels, as 64 hexadecimal digits; cheap, so it notices
            added, removed, renamed, resized and relabelled samples, but not pixels edited in place at the
            same file size.
        skipped: what was left out when the source was opened with `bad="skip"`, one line each.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def labels_N(self) -> NDArray[np.int64]: ...  # noqa: D102, N802
    @property
    def shards_N(self) -> NDArray[np.int64] | None: ...  # noqa: D102, N802
    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def skipped(self) -> tuple[str, ...]: ...  # noqa: D102

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The sample's name within its data set, unique there, and the same wherever the data set lies."""
        ...

    def read(self, index: int) -> Sample:
        """The sample at 0 <= index < len.

        Raises:
            UserError: it can no longer be read.
        """
        ...

    def with_block_cache(self, cache: BlockCache) -> "Source":
        """The same samples, to be read shard by shard: shards behind URLs are read through `cache`."""
        ...


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """What every source has in common: its description, and a label for each sample; see `Source`."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels_N)


class NotInShards(LabelledSource):
    """A source whose samples do not lie in shards."""

    @property
    def shards_N(self) -> None:  # noqa: N802
        """No sample lies in a shard; see `Source.shards_N`."""
        return None

    def with_block_cache(self, cache: BlockCache) -> Self:
        """This source itself: there is nothing to cache."""
        return self


def fingerprint(classes: Sequence[str], rows: Iterable[tuple[str, int, int]]) -> str:
    """SHA-256 over class names and every sample's (name, size in bytes, label), as hexadecimal digits."""
    digest = hashlib.sha256()
    for name in classes:
        digest.update(f"{name}\0".encode(errors="surrogateescape"))
    for name, size, label in rows:
        digest.update(f"{name}\0{size}\0{label}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def name_rank(name: str) -> bytes:
    """The SHA-256 of a sample's name: sorting by it gives a fixed order that is unrelated to the names."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def split_by_name(
    names: Sequence[str], labels: Sequence[int], split: TrainOrTest, test_share: float = TEST_SHARE
) -> list[int]:
    """The indices of one side of a fixed split, in order, the same share of every class.

    Within each class the samples are ranked by the SHA-256 of their names, and the first `test_share`
    (rounded; at least one where the class has two or more) is the test side. Nothing is random, so the split is
    the same everywhere.

    Args:
        names: each sample's name within its data set.
        labels: each sample's label.
        split: the wanted side.
        test_share: of each class, between 0 and 1.
    """
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_class.setdefault(label, []).append(index)
    wanted: list[int] = []
    for indices in by_class.values():
        ranked = sorted(indices, key=lambda index: name_rank(names[index]))
        count = max(1, round(test_share * len(ranked))) if len(ranked) > 1 else 0
        wanted += ranked[:count] if split == "test" else ranked[count:]
    return sorted(wanted)


def check_classes(name: str, classes: Sequence[str]) -> None:
    """Refuses a data set of fewer than two classes.

    Raises:
        UserError: fewer than two classes.
    """
    if len(classes) < 2:
        only = f"only the class '{classes[0]}'" if classes else "no class"
        raise UserError(f"{name}: there is {only}; give two or more classes")


@dataclass(frozen=True, eq=False)
class SelectedSource(LabelledSource):
    """Chosen samples of other sources; see `Source`.

    `places_N2` holds (which of `sources`, index there) of each sample. The fingerprint covers the sources' own and the
    choice. Shards of different sources are different shards; where one source has none, the selection has none.
    """

    shards_N: NDArray[np.int64] | None
    sources: tuple[Source, ...]
    places_N2: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The sample's key in the source that it comes from; see `Source.key`."""
        number, place = self.places_N2[index].tolist()
        return self.sources[int(number)].key(place)

    def read(self, index: int) -> Sample:
        """The sample at `index`; see `Source.read`."""
        number, place = self.places_N2[index].tolist()
        return self.sources[int(number)].read(place)

    def with_block_cache(self, cache: BlockCache) -> "SelectedSource":
        """The same samples; see `Source.with_block_cache`."""
        return replace(self, sources=tuple(source.with_block_cache(cache) for source in self.sources))


def select(name: str, chosen: Sequence[tuple[Source, Sequence[int]]]) -> SelectedSource:
    """One source from the given samples of one or more sources, in the given order.

    Args:
        name: what the new source is called.
        chosen: sources of the same classes, each with indices into it.

    Raises:
        UserError: no sample, or sources of different classes.
    """
    first = chosen[0][0]
    for source, _ in chosen:
        if source.classes != first.classes:
            raise UserError(f"{source.name}: its classes differ from those of {first.name}; give both the same classes")
    places = [(number, index) for number, (_, indices) in enumerate(chosen) for index in indices]
    if not places:
        raise UserError(f"{name}: no image is left in it; its data set is too small to be split")
    places_N2 = np.array(places, np.int64)
    digest = hashlib.sha256("".join(source.fingerprint for source, _ in chosen).encode())
    digest.update(places_N2.astype("<i8").tobytes())
    sources = list({id(source): source for source, _ in chosen}.values())  # each once, however often it is named
    numbers = {id(source): number for number, source in enumerate(sources)}
    places_N2[:, 0] = np.array([numbers[id(source)] for source, _ in chosen])[places_N2[:, 0]]
    return SelectedSource(
        name=name,
        classes=first.classes,
        labels_N=np.concatenate([source.labels_N[np.array(indices, np.int64)] for source, indices in chosen]),
        shards_N=_shards(sources, places_N2),
        fingerprint=digest.hexdigest(),
        sources=tuple(sources),
        places_N2=places_N2,
        skipped=tuple(line for source in sources for line in source.skipped),
    )


def _shards(sources: Sequence[Source], places_N2: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The shard of each chosen sample, numbered through all sources; None where a source has no shards."""
    shards_N = np.empty(len(places_N2), np.int64)
    first = 0
    for number, source in enumerate(sources):
        own = source.shards_N
        if own is None:
            return None
        mine = places_N2[:, 0] == number
        shards_N[mine] = first + own[places_N2[mine, 1]]
        first += int(own.max()) + 1
    return shards_N


def hashed_order(source: Source) -> list[int]:
    """A source's indices, sorted by the SHA-256 of their keys.

    Folders list their images class by class, so that "the first 800" would hold a few classes only; this order is
    fixed too, the same on every machine, and has nothing to do with the classes.
    """
    return sorted(range(len(source)), key=lambda index: name_rank(source.key(index)))


def keyed_split(source: Source, split: TrainOrTest, test_share: float) -> list[int]:
    """The indices of one side of a fixed split by key, the same share of every class; see `split_by_name`."""
    keys = [source.key(index) for index in range(len(source))]
    return split_by_name(keys, source.labels_N.tolist(), split, test_share)
