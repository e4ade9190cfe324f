"""Laws of the order for object storage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlab.data.order import shard_order

sizes = st.lists(st.integers(1, 30), min_size=1, max_size=12)
seeds = st.integers(-(2**70), 2**70)
PINNED = [0, 5, 3, 1, 6, 2, 4, 9, 7, 8]


@given(sizes, seeds, st.integers(0, 2**20), st.integers(1, 15))
def test_an_epoch_is_a_permutation(sizes, seed, epoch, window):
    length = sum(sizes)
    epochs, indices = shard_order(epoch * length + np.arange(length), sizes, seed, window)
    assert sorted(indices.tolist()) == list(range(length))
    assert (epochs == epoch).all()


@settings(max_examples=50)
@given(sizes, seeds, st.integers(1, 15), st.lists(st.integers(0, 2000), min_size=1, max_size=20))
def test_each_position_stands_alone(sizes, seed, window, positions):
    epochs, indices = shard_order(positions, sizes, seed, window)
    for position, epoch, index in zip(positions, epochs, indices, strict=True):
        assert shard_order(position, sizes, seed, window) == (epoch, index)


@given(sizes, seeds, st.integers(1, 15))
def test_at_most_a_window_of_shards_is_open_at_a_time(sizes, seed, window):
    length = sum(sizes)
    _, indices = shard_order(np.arange(length), sizes, seed, window)
    shards = np.searchsorted(np.cumsum(sizes), indices, side="right")
    first = {shard: position for position, shard in reversed(list(enumerate(shards.tolist())))}
    last = {shard: position for position, shard in enumerate(shards.tolist())}
    for position in range(length):
        assert sum(first[shard] <= position <= last[shard] for shard in first) <= window


def test_a_window_is_mixed():
    """Both halves of a window's positions hold about as many samples of each of its shards."""
    sizes = [1000] * 20
    _, indices = shard_order(np.arange(4000), sizes, 3, 4)
    shards, counts = np.unique(indices[:2000] // 1000, return_counts=True)
    assert len(shards) == 4
    assert (abs(counts - 500) < 5 * np.sqrt(1000 * 0.25)).all()
    assert abs(np.corrcoef(np.arange(4000), indices)[0, 1]) < 0.1


def test_epochs_and_seeds_and_windows_change_the_order():
    sizes = [100] * 30
    orders = [
        shard_order(epoch * 3000 + np.arange(3000), sizes, seed, window)[1]
        for epoch, seed, window in ((0, 1, 4), (1, 1, 4), (0, 2, 4), (0, 1, 5))
    ]
    for number, first in enumerate(orders):
        for second in orders[:number]:
            assert (first == second).mean() < 0.05


def test_epochs_of_one_shard_have_orders_of_their_own():
    _, indices = shard_order(np.arange(400), [100], 1, 1)
    assert len({tuple(row) for row in indices.reshape(4, 100).tolist()}) == 4


def test_windows_of_an_epoch_have_orders_of_their_own():
    _, indices = shard_order(np.arange(3000), [100] * 30, 1, 1)
    within = (indices % 100).reshape(30, 100)
    assert len({tuple(row) for row in within.tolist()}) == 30


def test_three_hundred_million_in_ten_thousand_shards():
    sizes = [30_000] * 10_000
    _, indices = shard_order(np.arange(299_900_000, 300_000_000), sizes, 7, 8)
    assert len(np.unique(indices)) == 100_000
    assert len(np.unique(indices // 30_000)) <= 8


@pytest.mark.parametrize("wrong", [([], 1), ([3, 0], 1), ([3], 0)])
def test_impossible_requests(wrong):
    sizes, window = wrong
    with pytest.raises(AssertionError):
        shard_order([0], sizes, 0, window)


def test_the_order_is_pinned():
    """Runs that are resumed under a later version need the very same order."""
    assert shard_order(np.arange(10), [3, 4, 3], 0, 2)[1].tolist() == PINNED
