"""The order of samples and their randomness, as pure functions of (seed, epoch): no state to save or to lose.

An epoch's order is a keyed permutation of 0 .. n - 1 that is computed position by position. The n numbers are
laid out on a grid of `rows` x `columns` >= n cells. Each round adds to one coordinate a keyed hash of the other,
modulo its range: a Feistel network, which can always be undone and is therefore a permutation of the cells.
Where a number lands on one of the fewer than sqrt(n) + 1 spare cells, the network is applied again until it
lands below n (cycle walking), which keeps it a permutation of 0 .. n - 1.
"""

import threading
from math import isqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    """One pass of the network over cell numbers below rows * columns; `keys` holds one key a cell."""
    row, column = cells // columns, cells % columns
    for number, constant in enumerate(ROUND_CONSTANTS):
        round_keys = _mix(keys + constant)
        if number % 2:
            row = (row + _mix(round_keys + column) % rows) % rows
        else:
            column = (column + _mix(round_keys + row) % columns) % columns
    return row * columns + column


def sample_order(positions: ArrayLike, length: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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
