"""Duplicates and near-duplicates of test images among training images (paper: section 4.1, "Datasets").

The paper names no detector; these are this package's own. Three compare images' files, their pixels, and their small
pictures; a fourth compares a model's features, which are passed in. Legend: N = training images of one block, T = test
images, D = width of features.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab.dedup.alignment import distances
from vitlab.dedup.hamming import LARGEST_RADIUS, HammingIndex, Ints, hamming_index
from vitlab.dedup.perceptual import VARIANTS, is_blank, variant_hashes
from vitlab.dedup.signatures import Signatures
from vitlab.errors import UserError, unknown_name

Detector = Literal["file", "pixels", "near", "embedding"]
DETECTORS: tuple[Detector, ...] = ("file", "pixels", "near", "embedding")  # from the surest to the least sure
CANDIDATES_AT_ONCE = 16_384
PRODUCTS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Thresholds:
    """When two images count as one.

    Attributes:
        radius: bits in which the hashes of a candidate may differ, at most 16.
        near: largest distance of two small pictures, see `alignment.distances`.
        cosine: smallest cosine similarity of two features.
    """

    radius: int = 10
    near: float = 1.0
    cosine: float = 0.95


class Pair(NamedTuple):
    """A training image and the test image that it repeats.

    Attributes:
        train, test: their indices.
        detector: the surest one that found them.
        distance: 0 for "file" and "pixels", that of `alignment.distances` for "near", 1 - cosine for "embedding".
        mirrored: whether one is the mirror image of the other; known for "near" only.
    """

    train: int
    test: int
    detector: Detector
    distance: float
    mirrored: bool = False


def parse_thresholds(changes: Iterable[str]) -> Thresholds:
    """Thresholds with some changed, each change written as `name=value`.

    Raises:
        UserError: another name, or a value outside the name's range.
    """
    values: dict[str, float] = {"radius": 10, "near": 1.0, "cosine": 0.95}
    ranges = {"radius": (0, LARGEST_RADIUS), "near": (0, 100), "cosine": (-1, 1)}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in values:
            raise unknown_name("threshold", name, values, listing=f"there are {', '.join(values)}")
        least, most = ranges[name]
        try:
            values[name] = int(text) if name == "radius" else float(text)
        except ValueError:
            values[name] = np.nan
        if not least <= values[name] <= most:
            kind = "a whole number" if name == "radius" else "a number"
            raise UserError(f"--set {change}: {name} is {kind} from {least} to {most}")
    return Thresholds(int(values["radius"]), values["near"], values["cosine"])


@dataclass(frozen=True, eq=False)
class DuplicateIndex:
    """Test images, among which training images can be looked up.

    Attributes:
        signatures: of all test images (T,).
        codes: every hash under which a duplicate may be found; None where only exact duplicates are searched for.
        owners: the test image of each of those codes.
        mirrored: whether the code is of the mirrored image.
    """

    signatures: Signatures
    codes: HammingIndex | None
    owners: Ints
    mirrored: NDArray[np.bool_]


def build_index(signatures: Signatures, *, near: bool) -> DuplicateIndex:
    """An index of test images: 1.1 KB per image, 1.0 KB more where near-duplicates are searched for as well."""
    if not near:
        return DuplicateIndex(signatures, None, np.zeros(0, np.int64), np.zeros(0, np.bool_))
    comparable = np.flatnonzero(signatures["readable"] & ~is_blank(signatures["thumbnail"]))
    codes_TV = np.concatenate(
        [np.zeros((0, VARIANTS), np.uint64)]
        + [variant_hashes(signatures["thumbnail"][chunk]) for chunk in _chunks(comparable, CANDIDATES_AT_ONCE)]
    )
    mirrored = np.tile(np.arange(VARIANTS) % 2 == 1, len(comparable))
    return DuplicateIndex(signatures, hamming_index(codes_TV.ravel()), np.repeat(comparable, VARIANTS), mirrored)


def find_exact(train: Signatures, index: DuplicateIndex) -> list[Pair]:
    """Training images (N,) whose file, or whose decoded pixels, are those of a test image."""
    pairs: list[Pair] = []
    for detector in DETECTORS[:2]:
        found = _same(train[detector], index.signatures[detector])
        readable = train["readable"][found[0]] & index.signatures["readable"][found[1]]
        rows, columns = found[0][readable].tolist(), found[1][readable].tolist()
        pairs += [Pair(i, j, detector, 0.0) for i, j in zip(rows, columns, strict=True)]
    return pairs


def find_near(train: Signatures, index: DuplicateIndex, thresholds: Thresholds) -> list[Pair]:
    """Training images (N,) that show a test image with changes: re-encoded, resized, mirrored, cropped, brightened.

    Candidates are found by their hashes and then compared by their small pictures. Blank images are left out: they
    show nothing to compare.
    """
    assert index.codes is not None
    comparable = np.flatnonzero(train["readable"] & ~is_blank(train["thumbnail"]))
    queries, codes = index.codes.within(train["hash"][comparable], thresholds.radius)
    keys = np.unique((comparable[queries] * len(index.signatures) + index.owners[codes]) * 2 + index.mirrored[codes])
    pairs: list[Pair] = []
    for chunk in _chunks(keys, CANDIDATES_AT_ONCE):
        (rows, columns), mirrored = np.divmod(chunk // 2, len(index.signatures)), chunk % 2 == 1
        tests = index.signatures["thumbnail"][columns]
        tests[mirrored] = tests[mirrored][:, :, ::-1]
        apart = distances(tests, train["thumbnail"][rows])
        for k in np.flatnonzero(apart <= thresholds.near).tolist():
            pairs.append(Pair(int(rows[k]), int(columns[k]), "near", float(apart[k]), bool(mirrored[k])))
    return pairs


def find_similar(
    train_ND: NDArray[np.float32], test_TD: NDArray[np.float32], cosine: float, device: torch.device | str = "cpu"
) -> list[Pair]:
    """Training images whose features point where a test image's do, by products of blocks of bounded size.

    Raises:
        UserError: features that are not finite.
    """
    tests_TD = _directions(test_TD, device)
    pairs: list[Pair] = []
    rows_at_once = max(1, PRODUCTS_AT_ONCE // max(1, len(tests_TD)))
    for start in range(0, len(train_ND), rows_at_once):
        cosines_NT = _directions(train_ND[start : start + rows_at_once], device) @ tests_TD.T
        rows, columns = torch.nonzero(cosines_NT >= cosine, as_tuple=True)
        apart = (1 - cosines_NT[rows, columns].double()).clamp_min(0).tolist()
        found = zip((rows + start).tolist(), columns.tolist(), apart, strict=True)
        pairs += [Pair(i, j, "embedding", distance) for i, j, distance in found]
    return pairs


def surest(pairs: Iterable[Pair]) -> list[Pair]:
    """One pair for each two images: the surest detector's, then the nearest; ordered by training image, then test."""
    best: dict[tuple[int, int], Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (DETECTORS.index(pair.detector), pair.distance, pair.mirrored)):
        best.setdefault((pair.train, pair.test), pair)
    return [best[key] for key in sorted(best)]


def later_duplicates(pairs: Sequence[Pair]) -> list[int]:
    """What to remove from a set that was compared with itself, so that no two images left are a pair.

    Of each pair (test < train) the later image goes, unless the earlier one goes already.
    """
    removed: set[int] = set()
    for pair in sorted(pairs):
        if pair.test not in removed:
            removed.add(pair.train)
    return sorted(removed)


def _same(train_N2: NDArray[np.uint64], test_T2: NDArray[np.uint64]) -> tuple[Ints, Ints]:
    """Every (row of train, row of test) with the same 128 bits."""
    order = np.argsort(test_T2[:, 0], kind="stable")
    first = np.searchsorted(test_T2[order, 0], train_N2[:, 0], "left")
    counts = np.searchsorted(test_T2[order, 0], train_N2[:, 0], "right") - first
    rows = np.repeat(np.arange(len(train_N2)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = order[np.repeat(first, counts) + within]
    same = train_N2[rows, 1] == test_T2[columns, 1]
    return rows[same], columns[same]


def _directions(features: NDArray[np.float32], device: torch.device | str) -> torch.Tensor:
    sent = torch.from_numpy(features).to(device)
    lengths = torch.linalg.vector_norm(sent, dim=1, keepdim=True)
    if not bool(torch.isfinite(lengths).all()):
        raise UserError("dedup: the model's features hold NaN or infinite values; the weights may be damaged")
    directions: torch.Tensor = sent / lengths.clamp_min(1e-12)
    return directions


def _chunks(values: Ints, size: int) -> list[Ints]:
    return [values[start : start + size] for start in range(0, len(values), size)]
