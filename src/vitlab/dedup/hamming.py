"""Every stored 64-bit code within a Hamming radius of a query, exactly, without comparing with all of them.

Multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): the 64 bits are cut into four bands of 16, and the codes
are sorted by each. Two codes within radius r agree in at least one band up to that band's own radius, where the bands'
radii sum to r - 3: were all larger, the sum of differences would be at least (r - 3) + 4 = r + 1. So a query looks up,
in each band, the few keys within the band's radius, and compares only what it finds there. Legend: Q = queries,
C = codes.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from vitlab.dedup.perceptual import Hashes

BANDS = 4
BAND_BITS = 16
KEYS = 1 << BAND_BITS
LARGEST_RADIUS = 16  # beyond it the lists of keys outgrow the comparison with all codes
QUERIES_AT_ONCE = 512
CANDIDATES_AT_ONCE = 1 << 16  # fits into a processor core's cache

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HammingIndex:
    """Codes sorted by each band.

    Attributes:
        orders: for each band, positions (C,) int32 of the codes, sorted by the band.
        sorted_codes: for each band, the codes (C,) in that order: what belongs to a key is contiguous in memory.
        starts: for each band, where each of the 65,536 keys begins in the order; one more entry ends the last.
    """

    orders: tuple[NDArray[np.int32], ...]
    sorted_codes: tuple[Hashes, ...]
    starts: tuple[NDArray[np.int32], ...]

    def within(self, queries_Q: Hashes, radius: int) -> tuple[Ints, Ints]:
        """Every (query, code) pair with at most `radius` <= 16 different bits, ordered by query, then code."""
        assert 0 <= radius <= LARGEST_RADIUS
        masks = [_masks(band_radius) for band_radius in _band_radii(radius)]
        found = [
            self._chunk(queries_Q[start : start + QUERIES_AT_ONCE], radius, masks) + start * len(self.orders[0])
            for start in range(0, len(queries_Q), QUERIES_AT_ONCE)
        ]
        pairs = np.concatenate([np.zeros(0, np.int64), *found])
        return np.divmod(pairs, max(1, len(self.orders[0])))

    def _chunk(self, queries_Q: Hashes, radius: int, masks: list[NDArray[np.uint16]]) -> Ints:
        """Query number * C + code number of every pair, sorted."""
        found = []
        for band, band_masks in enumerate(masks):
            keys_QM = _band(queries_Q, band)[:, None] ^ band_masks
            first_QM, last_QM = self.starts[band][keys_QM], self.starts[band][keys_QM.astype(np.int32) + 1]
            rows, columns = np.nonzero(last_QM > first_QM)
            first, counts = first_QM[rows, columns], (last_QM - first_QM)[rows, columns]
            for chunk in _bounded(counts):
                places = _ranges(first[chunk], counts[chunk])
                asked = np.repeat(queries_Q[rows[chunk]], counts[chunk])
                near = np.flatnonzero(np.bitwise_count(asked ^ self.sorted_codes[band][places]) <= radius)
                owners = np.searchsorted(np.cumsum(counts[chunk]), near, "right")
                found.append(rows[chunk][owners] * len(self.orders[band]) + self.orders[band][places[near]])
        return np.unique(np.concatenate([np.zeros(0, np.int64), *found]))


def hamming_index(codes_C: Hashes) -> HammingIndex:
    """An index of fewer than 2^31 codes (C,): 48 bytes per code and 1 MB."""
    assert len(codes_C) < 2**31
    orders, sorted_codes, starts = [], [], []
    for band in range(BANDS):
        keys_C = _band(codes_C, band)
        orders.append(np.argsort(keys_C, kind="stable").astype(np.int32))
        sorted_codes.append(codes_C[orders[band]])
        counts = np.bincount(keys_C, minlength=KEYS)
        starts.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return HammingIndex(tuple(orders), tuple(sorted_codes), tuple(starts))


def _band(codes: Hashes, band: int) -> NDArray[np.uint16]:
    return (codes >> np.uint64(band * BAND_BITS)).astype(np.uint16)


def _band_radii(radius: int) -> list[int]:
    """Radii that sum to radius - 3; a band of radius -1 needs no look-up."""
    total = radius + 1
    return [total // BANDS + (band < total % BANDS) - 1 for band in range(BANDS)]


def _masks(radius: int) -> NDArray[np.uint16]:
    """Every 16-bit number with at most `radius` bits set; an empty array for -1."""
    sets = (sum(1 << bit for bit in bits) for count in range(radius + 1) for bits in combinations(range(16), count))
    return np.array(list(sets), np.uint16)


def _bounded(counts: NDArray[np.int32]) -> list[slice]:
    """Cuts a list of counts into slices of about CANDIDATES_AT_ONCE candidates, so that memory is bounded."""
    if not len(counts):
        return []
    bins = np.cumsum(counts, dtype=np.int64) // CANDIDATES_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(bins)) + 1).tolist(), len(counts)]
    return [slice(*pair) for pair in pairwise(cuts)]


def _ranges(first: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """first[0] .. first[0] + counts[0] - 1, first[1] .. and so on, in one array."""
    ends = np.cumsum(counts, dtype=np.int32)
    return np.arange(ends[-1], dtype=np.int32) + np.repeat(first - ends + counts, counts)
