"""What a data set is to the rest of vitlab: encoded images and labels by index, with a fingerprint."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vitlab.data.block_cache import BlockCache
from vitlab.errors import UserError

TrainOrTest = Literal["train", "test"]
Split = Literal["train", "test", "dev-train", "dev"]  # what a user may ask for; dev-train and dev divide train
Bad = Literal["refuse", "skip"]
TEST_SHARE = 0.2  # of a data set that comes without a split of its own


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        data: the image file's bytes, still encoded.
        label: index into the source's classes.
        name: what to call it in an error: a file, or a shard and a key.
    """

    data: bytes
    label: int
    name: str


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
            UserError: it cannot be read any more.
        """
        ...

    def with_block_cache(self, cache: BlockCache) -> "Source":
        """The same samples, to be read shard by shard: shards behind URLs are read through `cache`."""
        ...


class NotInShards:
    """What every source has in common whose samples do not lie in shards."""

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
    """The SHA-256 of a sample's name: sorting by it gives a fixed order that has nothing to do with the names'."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def split_by_name(
    names: Sequence[str], labels: Sequence[int], split: TrainOrTest, test_share: float = TEST_SHARE
) -> list[int]:
    """The indices of one side of a fixed split, in order, the same share of every class.

    Within each class the samples are ranked by the SHA-256 of their names, and the first `test_share`
    (rounded; at least one where the class has two or more) is the test side. Nothing is drawn, so the split is
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
    """Refuses a data set that there is nothing to tell apart in.

    Raises:
        UserError: fewer than two classes.
    """
    if len(classes) < 2:
        only = f"only the class '{classes[0]}'" if classes else "no class"
        raise UserError(f"{name}: there is {only}; give two or more classes to tell apart")
