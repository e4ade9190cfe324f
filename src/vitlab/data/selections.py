"""Parts of sources as sources of their own: chosen samples, in a chosen order, from one source or several."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitlab.data.block_cache import BlockCache
from vitlab.data.sources import Sample, Source, TrainOrTest, name_rank, split_by_name
from vitlab.errors import UserError


@dataclass(frozen=True, eq=False)
class SelectedSource:
    """Chosen samples of other sources; see `sources.Source`.

    `places_N2` holds (which of `sources`, index there) of each sample. The fingerprint covers the sources' own and the
    choice. Shards of different sources are different shards; where one source has none, the selection has none.
    """

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    shards_N: NDArray[np.int64] | None
    fingerprint: str
    sources: tuple[Source, ...]
    places_N2: NDArray[np.int64]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def key(self, index: int) -> str:
        """The sample's key in the source that it comes from; see `sources.Source.key`."""
        number, place = self.places_N2[index].tolist()
        return self.sources[int(number)].key(place)

    def read(self, index: int) -> Sample:
        """The sample at `index`; see `sources.Source.read`."""
        number, place = self.places_N2[index].tolist()
        return self.sources[int(number)].read(place)

    def with_block_cache(self, cache: BlockCache) -> "SelectedSource":
        """The same samples; see `sources.Source.with_block_cache`."""
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
        raise UserError(f"{name}: there is no image left in it; its data set is too small to be split")
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
    """The indices of one side of a fixed split by key, the same share of every class; see `sources.split_by_name`."""
    keys = [source.key(index) for index in range(len(source))]
    return split_by_name(keys, source.labels_N.tolist(), split, test_share)
