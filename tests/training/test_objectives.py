"""Losses against plain float64 formulas."""

import numpy as np
import pytest
import torch

from vitlab.recipes.schema import ObjectivePart
from vitlab.training.objectives import loss

LOGITS = np.random.default_rng(0).standard_normal((6, 5)) * 3
LABELS = np.array([0, 1, 2, 3, 4, 0])


def _targets(smoothing: float) -> np.ndarray:
    return np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_is_the_mean_cross_entropy(smoothing):
    log_probabilities = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    expected = -(_targets(smoothing) * log_probabilities).sum(1).mean()
    part = ObjectivePart(loss="softmax", label_smoothing=smoothing)
    assert float(loss(torch.tensor(LOGITS), torch.tensor(LABELS), part)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 1e-4])
def test_sigmoid_sums_over_classes_and_averages_over_images(smoothing):
    probabilities = 1 / (1 + np.exp(-LOGITS))
    targets = _targets(smoothing)
    expected = -(targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities)).sum(1).mean()
    part = ObjectivePart(loss="sigmoid", label_smoothing=smoothing)
    assert float(loss(torch.tensor(LOGITS), torch.tensor(LABELS), part)) == pytest.approx(expected, rel=1e-5)


def test_half_precision_logits_are_judged_in_float32():
    logits = torch.tensor(LOGITS, dtype=torch.bfloat16)
    value = loss(logits, torch.tensor(LABELS), ObjectivePart())
    assert value.dtype == torch.float32
