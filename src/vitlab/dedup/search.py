"""The search for duplicates through an entire training set: block by block, shared by any number of processes.

Each block's result is a file whose name says everything that it depends on. A process works on every n-th block that
has no file yet; the last one finds all files and joins them. So the result does not depend on the
number of processes, and a search that was stopped continues where it was.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.data.sources import Bad, Source, select
from vitlab.dedup import duplicates
from vitlab.dedup.duplicates import DETECTORS, DuplicateIndex, Pair, Thresholds
from vitlab.dedup.signatures import BLOCK, Signatures, blocks, check_readable, sign_block
from vitlab.errors import UserError
from vitlab.files import write_text

VERSION = 1  # of what a result means: files of another version are made again
Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Embedding:
    """A model's features.

    Attributes:
        key: names the model's weights, so that results of other weights are not mistaken for theirs.
        features: (source) -> (N, D) float32, one row for each image.
        device: where they are compared.
    """

    key: str
    features: Callable[[Source], NDArray[np.float32]]
    device: torch.device | str = "cpu"


@dataclass(frozen=True, eq=False)
class Search:
    """What is compared, and how.

    Attributes:
        train: the training set.
        tests: the test sets; an empty tuple compares the training set with itself.
        near: whether near-duplicates are searched for, beside exact ones.
        embedding: features to compare as well.
        thresholds: when two images count as one.
        folder: keeps intermediate results.
        bad_images: what happens where an image cannot be read.
        workers: threads that read and decode; None means one per processor.
    """

    train: Source
    tests: tuple[Source, ...]
    near: bool
    embedding: Embedding | None
    thresholds: Thresholds
    folder: Path
    bad_images: Bad = "refuse"
    workers: int | None = None

    @property
    def references(self) -> tuple[Source, ...]:
        """The sets that training images are looked up in."""
        return self.tests or (self.train,)


@dataclass(frozen=True)
class SearchResult:
    """The duplicates that a search found.

    Attributes:
        pairs: ordered by training image, then test image; the latter are numbered through all test sets.
        unreadable: images of the training set that could not be read.
    """

    pairs: tuple[Pair, ...]
    unreadable: tuple[int, ...]


def check_search(search: Search) -> None:
    """Refuses a comparison of a set with itself under another name.

    Raises:
        UserError: a test set is the training set, or given twice.
    """
    seen = {search.train.fingerprint: f"the training set ({search.train.name})"}
    for test in search.tests:
        if test.fingerprint in seen:
            advice = "give --train alone to search for duplicates within it" if len(seen) == 1 else "give it once"
            raise UserError(f"--test {test.name}: it is the same set as {seen[test.fingerprint]}; {advice}")
        seen[test.fingerprint] = f"the test set {test.name}"


def read_references(search: Search, progress: Progress) -> Signatures:
    """The records of all test sets, one after the other; progress counts images."""
    records = []
    done = 0
    for source in search.references:
        for indices in blocks(source):
            records.append(_signed(search, source, indices, progress, done))
            check_readable(source, (indices.start + _unreadable(records[-1])).tolist(), search.bad_images)
            done += len(indices)
    return np.concatenate(records)


def run_blocks(search: Search, references: Signatures, progress: Progress, *, rank: int = 0, ranks: int = 1) -> int:
    """Works on this process's share of the training set's blocks; returns how many images that is."""
    mine = blocks(search.train)[rank::ranks]
    missing = [indices for indices in mine if _load(_result_path(search, indices), indices) is None]
    total = sum(map(len, mine))
    done = total - sum(map(len, missing))
    progress(done)
    if missing:
        index = duplicates.build_index(references, near=search.near)
        tests_TD = None if search.embedding is None else _features_of_references(search, references)
        for indices in missing:
            records = _signed(search, search.train, indices, progress, done)
            unreadable = (indices.start + _unreadable(records)).tolist()
            check_readable(search.train, unreadable, search.bad_images)
            pairs = _search_block(search, indices, records, index, tests_TD)
            content = {"pairs": pairs, "unreadable": unreadable}
            write_text(_result_path(search, indices), json.dumps(content) + "\n")
            done += len(indices)
    return total


def join(search: Search) -> SearchResult:
    """All blocks' results as one; every block must have been worked on.

    Raises:
        UserError: an image could not be read, and that is not allowed.
    """
    pairs: list[Pair] = []
    unreadable: list[int] = []
    for indices in blocks(search.train):
        found = _load(_result_path(search, indices), indices)
        assert found is not None
        pairs += found.pairs
        unreadable += found.unreadable
    check_readable(search.train, unreadable, search.bad_images)
    return SearchResult(tuple(pairs), tuple(unreadable))


def _search_block(
    search: Search, indices: range, records: Signatures, index: DuplicateIndex, tests_TD: NDArray[np.float32] | None
) -> list[Pair]:
    pairs = duplicates.find_exact(records, index)
    if search.near:
        pairs += duplicates.find_near(records, index, search.thresholds)
    if search.embedding is not None and tests_TD is not None:
        rows = np.flatnonzero(records["readable"])
        columns = np.flatnonzero(index.signatures["readable"])
        if len(rows) and len(columns):
            features_ND = _features(search.embedding, search.train, (indices.start + rows).tolist())
            similar = duplicates.find_similar(features_ND, tests_TD, search.thresholds.cosine, search.embedding.device)
            pairs += [pair._replace(train=int(rows[pair.train]), test=int(columns[pair.test])) for pair in similar]
    placed = [pair._replace(train=indices.start + pair.train) for pair in pairs]
    return duplicates.surest(pair for pair in placed if search.tests or pair.test < pair.train)


def _features_of_references(search: Search, references: Signatures) -> NDArray[np.float32]:
    """Features (T, D) of the readable test images."""
    assert search.embedding is not None
    features, start = [], 0
    for source in search.references:
        rows = np.flatnonzero(references["readable"][start : start + len(source)]).tolist()
        start += len(source)
        if rows:
            features.append(_features(search.embedding, source, rows))
    return np.concatenate(features) if features else np.zeros((0, 1), np.float32)


def _features(embedding: Embedding, source: Source, indices: Sequence[int]) -> NDArray[np.float32]:
    features_ND = embedding.features(select(source.name, [(source, indices)]))
    assert len(features_ND) == len(indices)
    return features_ND


def _signed(search: Search, source: Source, indices: range, progress: Progress, before: int) -> Signatures:
    """The records of one block; `before` images were done earlier."""
    folder = search.folder / "signatures"
    return sign_block(source, indices, folder, workers=search.workers, progress=lambda count: progress(before + count))


def _unreadable(records: Signatures) -> NDArray[np.int64]:
    return np.flatnonzero(~records["readable"])


def _result_path(search: Search, indices: range) -> Path:
    """Where a block's result lies: the folder's name covers everything that results depend on."""
    depends = {
        "version": VERSION,
        "train": search.train.fingerprint,
        "tests": [test.fingerprint for test in search.tests],
        "near": search.near,
        "embedding": None if search.embedding is None else search.embedding.key,
        "thresholds": asdict(search.thresholds),
    }
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:32]
    return search.folder / f"pairs-{key}" / f"{indices.start // BLOCK:06d}.json"


def _load(path: Path, indices: range) -> SearchResult | None:
    """A result that was written before; None where there is no such file, or it is damaged."""
    try:
        content = json.loads(path.read_bytes())
        pairs = tuple(
            Pair(int(train), int(test), DETECTORS[DETECTORS.index(detector)], float(distance), bool(mirrored))
            for train, test, detector, distance, mirrored in content["pairs"]
        )
        unreadable = tuple(int(index) for index in content["unreadable"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = all(pair.train in indices for pair in pairs) and all(index in indices for index in unreadable)
    return SearchResult(pairs, unreadable) if known else None
