"""Polyak averaging against its definition, in float64."""

import math

import numpy as np
import torch

from vitlab.training.optimizers import PolyakAverage


def test_the_average_is_the_debiased_weighted_mean():
    weights = {"w": torch.zeros(2, 3)}
    average = PolyakAverage(weights, 0.97)
    seen = [math.sin(step) for step in range(200)]
    for value in seen:
        weights["w"].fill_(value)
        average.update(weights)
    shares = np.array([0.03 * 0.97 ** (199 - step) for step in range(200)])
    expected = float((shares * np.array(seen)).sum() / shares.sum())
    np.testing.assert_allclose(average.weights()["w"].numpy(), expected, atol=1e-6)


def test_the_papers_decay_after_200_updates_is_the_mean_of_moving_weights():
    """At 0.9999 the first updates count as much as the last, and nothing is left of the start at zero."""
    generator = np.random.default_rng(0)
    steps = generator.standard_normal((200, 5)).cumsum(0)
    weights = {"w": torch.zeros(5)}
    average = PolyakAverage(weights, 0.9999)
    for values in steps:
        weights["w"].copy_(torch.tensor(values))
        average.update(weights)
    shares = 0.9999 ** np.arange(199, -1, -1)
    expected = (shares[:, None] * steps.astype(np.float32)).sum(0) / shares.sum()
    np.testing.assert_allclose(average.weights()["w"].numpy(), expected, atol=1e-6, rtol=1e-6)


def test_the_average_of_one_update_is_the_weights_themselves():
    weights = {"w": torch.randn(3)}
    average = PolyakAverage(weights, 0.9999)
    average.update(weights)
    torch.testing.assert_close(average.weights()["w"], weights["w"], rtol=1e-5, atol=1e-7)


def test_every_weight_has_an_average_of_its_own():
    weights = {"b": torch.full((2,), 1.0), "a": torch.full((2,), 2.0), "c": torch.full((2,), 3.0)}
    average = PolyakAverage(weights, 0.9)
    for _ in range(3):
        average.update(weights)
    for name, weight in weights.items():
        torch.testing.assert_close(average.weights()[name], weight)
