"""An order of samples for shards in object storage: few shards at a time, each read about once an epoch.

`order.sample_order` draws from the whole data set: best for learning, but over a network every sample is then a request
of its own to a random shard. Here an epoch visits the shards in a permuted order, takes `window` of them at a time, and
permutes the samples of these among themselves. A reader that keeps the shards of one window at hand fetches each shard
once an epoch. What is given up: two samples of far apart shards are never close within an epoch, so samples that lie
sorted by class in their shards make batches of few classes; pack them shuffled, or take a larger window. With a window
of all shards the order is as good as `sample_order`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitlab.data.order import GOLDEN, MASK_64, sample_order

Int64s = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Epoch:
    """One epoch's layout: the order of the shards, and where each window of them starts in the epoch."""

    shards_S: Int64s
    ends_W: Int64s  # where each window ends
    within_S: Int64s  # where each visited shard starts in the epoch


def shard_order(positions: ArrayLike, sizes: Sequence[int], seed: int, window: int) -> tuple[Int64s, Int64s]:
    """Which sample stands at each position of an endless stream of epochs, shard by shard.

    Every epoch holds each sample exactly once. It is a function of (position, sizes, seed, window) alone, so that it is
    entered anywhere without replay; memory and work grow with the number of shards, not of samples.

    Args:
        positions: (N,) integers >= 0, in any order.
        sizes: samples in each shard, at least one shard, each at least one; sample i of the data set is the i-th of the
            shards joined.
        seed: any integer; it is taken modulo 2^64.
        window: how many shards are mixed at a time, >= 1.

    Returns:
        (epochs_N, indices_N): for each position its epoch, and its sample's index.
    """
    sizes_S = np.asarray(sizes, np.int64)
    assert len(sizes_S) > 0
    assert sizes_S.min() > 0
    assert window >= 1
    positions_N = np.atleast_1d(np.asarray(positions, np.int64))
    assert positions_N.size == 0 or positions_N.min() >= 0
    epochs_N, places_N = np.divmod(positions_N, int(sizes_S.sum()))
    indices_N = np.empty_like(places_N)
    for epoch in np.unique(epochs_N).tolist():
        mine = epochs_N == epoch
        indices_N[mine] = _in_epoch(places_N[mine], epoch, sizes_S, seed, window)
    return epochs_N, indices_N


def _in_epoch(places_N: Int64s, epoch: int, sizes_S: Int64s, seed: int, window: int) -> Int64s:
    layout = _layout(epoch, sizes_S, seed, window)
    starts_S = np.cumsum(sizes_S) - sizes_S
    windows_N = np.searchsorted(layout.ends_W, places_N, side="right")
    indices_N = np.empty_like(places_N)
    for number in np.unique(windows_N).tolist():
        mine = windows_N == number
        start = int(layout.ends_W[number - 1]) if number else 0
        length = int(layout.ends_W[number]) - start
        _, shuffled = sample_order(places_N[mine] - start, length, _seed(seed, epoch, number))
        visited = np.searchsorted(layout.within_S, start + shuffled, side="right") - 1
        indices_N[mine] = starts_S[layout.shards_S[visited]] + start + shuffled - layout.within_S[visited]
    return indices_N


def _layout(epoch: int, sizes_S: Int64s, seed: int, window: int) -> _Epoch:
    count = len(sizes_S)
    _, shards_S = sample_order(epoch * count + np.arange(count), count, seed)
    ends_S = np.cumsum(sizes_S[shards_S])
    last = np.minimum(np.arange(window, count + window, window), count) - 1
    return _Epoch(shards_S, ends_S[last], ends_S - sizes_S[shards_S])


def _seed(seed: int, epoch: int, window: int) -> int:
    """A seed of its own for each window of each epoch; the odd factors keep neighbours apart."""
    return (seed * 0xD1342543DE82EF95 + epoch * GOLDEN + (window + 1) * 0xA0761D6478BD642F) & MASK_64
