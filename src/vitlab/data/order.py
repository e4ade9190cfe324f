"""The order of samples and their randomness, as pure functions of (seed, epoch): no state to save or to lose.

`sample_order`: an epoch's order is a keyed permutation of 0 .. n - 1 that is computed position by position. The n
numbers are laid out on a grid of `rows` x `columns` >= n cells. Each round adds to one coordinate a keyed hash of the
other, modulo its range: a Feistel network, which can always be undone and is therefore a permutation of the cells.
Where a number lands on one of the fewer than sqrt(n) + 1 spare cells, the network is applied again until it lands
below n (cycle walking), which keeps it a permutation of 0 .. n - 1.

`shard_order` is for shards in object storage: few shards at a time, each read about once per epoch. `sample_order`
draws from the entire data set: best for learning, but over a network every sample is then a request of its own to a
random shard. Here an epoch visits the shards in a permuted order, takes `window` of them at a time, and permutes the
samples of these among themselves. A reader that keeps the shards of one window in memory fetches each shard once per
epoch. The price: two samples of far apart shards are never close within an epoch, so samples that lie sorted by class
in their shards make batches of few classes; pack them shuffled, or take a larger window. With a window of all shards
the order is as good as `sample_order`'s.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

MASK_64 = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: spreads consecutive numbers
# Eight rounds leave the order of five or six samples visibly uneven, twelve do not.
ROUND_CONSTANTS = tuple(np.uint64(number * GOLDEN & MASK_64) for number in range(16))
AUGMENTATION_STREAM = 0x766974  # keeps the streams of samples apart from other uses of the same seed


def _mix(values: UInt64s) -> UInt64s:
    """Scrambles 64-bit numbers one to one: the finaliser of SplitMix64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _permute_cells(cells: UInt64s, keys: UInt64s, rows: np.uint64, columns: np.uint64) -> UInt64s:
    """One pass of the network over cell numbers below rows * columns; `keys` holds one key per cell."""
    row, column = cells // columns, cells % columns
    for number, constant in enumerate(ROUND_CONSTANTS):
        round_keys = _mix(keys + constant)
        if number % 2:
            row = (row + _mix(round_keys + column) % rows) % rows
        else:
            column = (column + _mix(round_keys + row) % columns) % columns
    return row * columns + column


def sample_order(positions: ArrayLike, length: int, seed: int) -> tuple[Int64s, Int64s]:
    """Which sample stands at each position of an endless stream of epochs.

    Every epoch holds each of the `length` samples exactly once, in an order of its own. Memory does not grow
    with `length`, and any position is computed without the ones before it.

    Args:
        positions: (N,) integers >= 0, in any order.
        length: the number of samples, >= 1.
        seed: any integer; it is taken modulo 2^64.

    Returns:
        (epochs_N, indices_N): for each position its epoch, and its sample's index, 0 <= index < length.
    """
    assert length >= 1
    positions_N = np.atleast_1d(np.asarray(positions, dtype=np.int64))
    assert positions_N.size == 0 or positions_N.min() >= 0
    epochs_N, places_N = np.divmod(positions_N, length)
    seed_key = _mix(np.array([seed & MASK_64], dtype=np.uint64))
    keys_N = _mix(seed_key + epochs_N.astype(np.uint64) * np.uint64(GOLDEN))
    rows = isqrt(length - 1) + 1
    columns = -(-length // rows)
    cells_N = places_N.astype(np.uint64)
    walking = np.arange(cells_N.size)
    while walking.size:
        cells_N[walking] = _permute_cells(cells_N[walking], keys_N[walking], np.uint64(rows), np.uint64(columns))
        walking = walking[cells_N[walking] >= length]
    return epochs_N, cells_N.astype(np.int64)


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


class SampleGenerators(threading.local):
    """The sources of every random draw about each sample in each epoch.

    Philox is counter-based: (epoch, index) start the counter 2^128 draws apart, so no two samples' streams can meet.
    Each thread moves one generator from sample to sample, which takes a tenth of the time of making one.

    Args:
        seed: any integer; it is taken modulo 2^64.
    """

    def __init__(self, seed: int) -> None:
        self._key = np.array([seed & MASK_64, AUGMENTATION_STREAM], dtype=np.uint64)
        self._empty = np.zeros(4, dtype=np.uint64)
        self._philox = np.random.Philox(key=self._key)
        self._generator = np.random.Generator(self._philox)

    def of(self, epoch: int, index: int) -> np.random.Generator:
        """The generator of a sample, at its start; good until this thread asks for the next one.

        Args:
            epoch: >= 0.
            index: the sample's index in its source, >= 0.
        """
        self._philox.state = {
            "bit_generator": "Philox",
            "state": {"counter": np.array([0, 0, index, epoch], dtype=np.uint64), "key": self._key},
            "buffer": self._empty,
            "buffer_pos": 4,  # nothing is left in the buffer
            "has_uint32": 0,
            "uinteger": 0,
        }
        return self._generator
