"""Losses against plain float64 formulas."""

import numpy as np
import pytest
import torch

from vitlab.recipes.schema import ObjectiveConfig
from vitlab.training.objectives import correct, loss, total

LOGITS = np.random.default_rng(0).standard_normal((6, 5)) * 3
LABELS = np.array([0, 1, 2, 3, 4, 0])


def _targets(smoothing: float) -> np.ndarray:
    return np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_the_mean_cross_entropy(smoothing):
    log_probabilities = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    expected = -(_targets(smoothing) * log_probabilities).sum(1).mean()
    part = ObjectiveConfig(loss="softmax", label_smoothing=smoothing)
    assert float(loss(torch.tensor(LOGITS), torch.tensor(LABELS), part)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-4])
def test_sigmoid_sums_over_classes_and_averages_over_images(smoothing):
    probabilities = 1 / (1 + np.exp(-LOGITS))
    targets = _targets(smoothing)
    expected = -(targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities)).sum(1).mean()
    part = ObjectiveConfig(loss="sigmoid", label_smoothing=smoothing)
    assert float(loss(torch.tensor(LOGITS), torch.tensor(LABELS), part)) == pytest.approx(expected, rel=1e-5)


def test_half_precision_logits_are_judged_in_float32():
    logits = torch.tensor(LOGITS, dtype=torch.bfloat16)
    value = loss(logits, torch.tensor(LABELS), ObjectiveConfig())
    assert value.dtype == torch.float32


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_that_are_hard_are_the_same(kind, smoothing):
    part = ObjectiveConfig(loss=kind, label_smoothing=smoothing)
    soft = torch.eye(5)[torch.tensor(LABELS)]
    hard = loss(torch.tensor(LOGITS), torch.tensor(LABELS), part)
    torch.testing.assert_close(loss(torch.tensor(LOGITS), soft, part), hard)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_targets(smoothing):
    """The loss is linear in the targets: a mixture costs the mixture of the losses."""
    for kind in ("softmax", "sigmoid"):
        part = ObjectiveConfig(loss=kind, label_smoothing=smoothing)
        first, second = torch.tensor(LABELS), torch.tensor(LABELS[::-1].copy())
        mixed = 0.3 * torch.eye(5)[first] + 0.7 * torch.eye(5)[second]
        expected = 0.3 * loss(torch.tensor(LOGITS), first, part) + 0.7 * loss(torch.tensor(LOGITS), second, part)
        torch.testing.assert_close(loss(torch.tensor(LOGITS), mixed, part), expected)


def test_sums_of_parts_are_the_sum_of_the_whole():
    part = ObjectiveConfig(label_smoothing=0.1)
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    parts = [total(logits[rows], labels[rows], part) for rows in (slice(0, 1), slice(1, 6), slice(6, 6))]
    torch.testing.assert_close(sum(parts), total(logits, labels, part))


def test_hits_of_hard_and_of_mixed_targets():
    logits = torch.tensor([[0.0, 1, 2], [3, 0, 0], [0, 5, 1]])
    assert int(correct(logits, torch.tensor([2, 1, 1]))) == 2
    assert int(correct(logits, torch.tensor([[0.2, 0.2, 0.6], [0.6, 0.4, 0], [0.5, 0.4, 0.1]]))) == 2
