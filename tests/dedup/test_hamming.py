"""The index finds exactly what comparing with every code finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.dedup import hamming
from vitlab.dedup.hamming import _band_radii, _masks, hamming_index


def _all_pairs(queries, codes, radius):
    return np.nonzero(np.bitwise_count(queries[:, None] ^ codes) <= radius)


def _near(codes, count, most, random):
    """Queries that differ from random codes in 0 to `most` bits."""
    flips = np.zeros(count, np.uint64)
    for row in range(count):
        for bit in random.choice(64, int(random.integers(0, most + 1)), replace=False):
            flips[row] |= np.uint64(1) << np.uint64(bit)
    return random.choice(codes, count) ^ flips


@settings(max_examples=25, deadline=None)
@given(radius=st.integers(0, 12), codes=st.integers(1, 300), queries=st.integers(0, 60), seed=st.integers(0, 2**32))
def test_agrees_with_comparing_all(radius, codes, queries, seed):
    random = np.random.default_rng(seed)
    stored = random.integers(0, 2**64, codes, dtype=np.uint64)
    stored[: codes // 3] = stored[0]  # equal codes
    asked = _near(stored, queries, radius + 2, random)
    expected = _all_pairs(asked, stored, radius)
    found = hamming_index(stored).within(asked, radius)
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].tolist() == expected[1].tolist()


def test_chunks_change_nothing(monkeypatch):
    random = np.random.default_rng(0)
    stored = random.integers(0, 2**10, 500).astype(np.uint64)  # crowded: many codes a key
    asked = random.integers(0, 2**10, 100).astype(np.uint64)
    expected = _all_pairs(asked, stored, 5)
    monkeypatch.setattr(hamming, "QUERIES_AT_ONCE", 7)
    monkeypatch.setattr(hamming, "CANDIDATES_AT_ONCE", 50)
    found = hamming_index(stored).within(asked, 5)
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].tolist() == expected[1].tolist()


def test_no_codes_or_no_queries():
    none = np.zeros(0, np.uint64)
    some = np.arange(3, dtype=np.uint64)
    assert [len(part) for part in hamming_index(none).within(some, 10)] == [0, 0]
    assert [len(part) for part in hamming_index(some).within(none, 10)] == [0, 0]


@pytest.mark.parametrize("radius", range(17))
def test_a_neighbour_agrees_with_some_band(radius):
    """Whatever way `radius` differences fall on the bands, one band has at most its own radius of them."""
    radii = _band_radii(radius)
    assert sum(radii) == radius - 3
    least_to_miss = sum(own + 1 for own in radii)
    assert least_to_miss > radius


def test_masks_are_all_numbers_with_few_bits():
    expected = {number for number in range(1 << 16) if number.bit_count() <= 2}
    assert set(_masks(2).tolist()) == expected
    assert len(_masks(2)) == len(expected)
    assert len(_masks(-1)) == 0
