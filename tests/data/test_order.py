"""Laws of the order of samples and of their generators."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.order import AUGMENTATION_STREAM, SampleGenerators, sample_order

PINNED_ORDER = [3, 5, 7, 4, 0, 6, 2, 1]
PINNED_FOURTH_EPOCH = [2, 1, 4, 6, 7, 0, 3, 5]
PINNED_SQUARE = [14, 1, 13, 8, 10, 4, 7, 0, 5, 3, 15, 11, 12, 6, 2, 9]
PINNED_PLACES = [1222848, 57674478, 110205831]
PINNED_DRAW = 0.9212927128615893

seeds = st.integers(-(2**70), 2**70)


@given(st.integers(1, 500), seeds, st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(length, seed, epoch):
    epochs, indices = sample_order(epoch * length + np.arange(length), length, seed)
    assert sorted(indices.tolist()) == list(range(length))
    assert (epochs == epoch).all()


@given(st.integers(1, 10**12), seeds, st.lists(st.integers(0, 10**15), min_size=1, max_size=50))
def test_each_position_stands_alone(length, seed, positions):
    epochs, indices = sample_order(positions, length, seed)
    assert ((indices >= 0) & (indices < length)).all()
    assert (epochs == np.array(positions) // length).all()
    for position, epoch, index in zip(positions, epochs, indices, strict=True):
        assert sample_order(position, length, seed) == (epoch, index)


def test_three_hundred_million_without_a_repeat():
    length = 300_000_000
    _, indices = sample_order(np.arange(length - 200_000, length), length, 3)
    assert len(np.unique(indices)) == 200_000
    assert indices.max() < length
    # 200,000 uniform draws miss the top and the bottom thousandth with a chance of e^-200 each.
    assert indices.min() < length / 1000
    assert indices.max() > length * 0.999


@pytest.mark.parametrize("length", [2, 3, 4, 5, 6, 7, 10, 16, 17])
def test_every_order_of_two_samples_is_as_likely(length):
    """Chi-square over ordered pairs of places, as epochs go by; the limit is 6 standard deviations."""
    epochs = 10_000
    _, indices = sample_order(np.arange(epochs * length), length, 11)
    orders = indices.reshape(epochs, length)
    for first in range(min(length, 4)):
        for second in range(first):
            pairs = np.bincount(orders[:, first] * length + orders[:, second], minlength=length**2)
            pairs = pairs.reshape(length, length)[~np.eye(length, dtype=bool)]
            expected, freedom = epochs / len(pairs), len(pairs) - 1
            statistic = ((pairs - expected) ** 2 / expected).sum()
            assert statistic < freedom + 6 * np.sqrt(2 * freedom)


def test_places_and_neighbours_are_uncorrelated():
    length = 100_000
    _, indices = sample_order(np.arange(length), length, 5)
    limit = 5 / np.sqrt(length)
    assert abs(np.corrcoef(np.arange(length), indices)[0, 1]) < limit
    assert abs(np.corrcoef(indices[1:], indices[:-1])[0, 1]) < limit


@pytest.mark.parametrize("other", [(8, 0), (7, 1)])
def test_seeds_and_epochs_change_the_order(other):
    length = 10_000
    seed, epoch = other
    _, first = sample_order(np.arange(length), length, 7)
    _, second = sample_order(epoch * length + np.arange(length), length, seed)
    # Two independent permutations agree in one place on average, whatever their length.
    assert (first == second).sum() < 12
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(length)


def test_the_order_is_pinned():
    """Runs that are resumed under a later version need the very same order."""
    assert sample_order(np.arange(8), 8, 0)[1].tolist() == PINNED_ORDER
    assert sample_order(np.arange(3), 300_000_000, 42)[1].tolist() == PINNED_PLACES
    assert sample_order(np.arange(24, 32), 8, 1)[1].tolist() == PINNED_FOURTH_EPOCH
    assert sample_order(np.arange(16), 16, 0)[1].tolist() == PINNED_SQUARE
    assert SampleGenerators(1).of(2, 3).random() == PINNED_DRAW


def test_seeds_are_taken_modulo_two_to_the_64():
    assert sample_order(np.arange(20), 20, -5)[1].tolist() == sample_order(np.arange(20), 20, 2**64 - 5)[1].tolist()


@pytest.mark.parametrize("sample", [(0, 0), (3, 77), (2**40, 2**33)])
def test_a_moved_generator_is_the_one_that_numpy_would_make(sample):
    epoch, index = sample
    generators = SampleGenerators(-5)
    generators.of(1, 2).integers(4)  # leaves half a number in the buffer
    moved = generators.of(epoch, index)
    key = np.array([2**64 - 5, AUGMENTATION_STREAM], dtype=np.uint64)
    counter = np.array([0, 0, index, epoch], dtype=np.uint64)
    fresh = np.random.Generator(np.random.Philox(key=key, counter=counter))
    for _ in range(20):
        assert moved.integers(4) == fresh.integers(4)  # a power of two, of which no number is drawn again
        assert moved.random() == fresh.random()
        assert moved.integers(2**40) == fresh.integers(2**40)


def test_threads_do_not_share_a_generator():
    generators = SampleGenerators(0)
    own = generators.of(0, 1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: generators.of(0, 2)).result() is not own
    assert own.random() == SampleGenerators(0).of(0, 1).random()


def test_a_generator_belongs_to_its_sample():
    draws = {
        (seed, epoch, index): tuple(SampleGenerators(seed).of(epoch, index).random(4))
        for seed in range(5)
        for epoch in range(5)
        for index in range(40)
    }
    assert len(set(draws.values())) == len(draws)
    assert tuple(SampleGenerators(4).of(3, 39).random(4)) == draws[4, 3, 39]
    first_draws = np.array(list(draws.values()))
    # 4,000 uniform numbers: mean 1/2 and variance 1/12, each within 5 standard errors.
    assert abs(first_draws.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 4000)
    assert abs(first_draws.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / 4000)
