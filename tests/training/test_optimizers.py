"""Schedules, AdamW, SGD and Polyak averaging against independent float64 arithmetic."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.recipes.schema import OptimizerConfig, ScheduleConfig
from vitlab.training.optimizers import build_optimizer, learning_rate


def test_linear_schedule_by_hand():
    part = ScheduleConfig(decay="linear", warmup_steps=10, end_learning_rate=1e-5)
    assert learning_rate(part, 1e-3, 1, 110) == pytest.approx(1e-4)
    assert learning_rate(part, 1e-3, 10, 110) == pytest.approx(1e-3)
    assert learning_rate(part, 1e-3, 60, 110) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(part, 1e-3, 110, 110) == pytest.approx(1e-5)


def test_cosine_schedule_by_hand():
    part = ScheduleConfig(decay="cosine", warmup_steps=0)
    assert learning_rate(part, 2.0, 25, 100) == pytest.approx(1 + math.cos(math.pi / 4))
    assert learning_rate(part, 2.0, 100, 100) == pytest.approx(0)


def test_constant_schedule_keeps_the_peak_after_the_warmup():
    part = ScheduleConfig(decay="constant", warmup_steps=4)
    assert [learning_rate(part, 1.0, step, 8) for step in (2, 4, 8)] == [0.5, 1.0, 1.0]


@given(st.integers(1, 500), st.integers(0, 200), st.sampled_from(["linear", "cosine", "constant"]))
def test_schedules_rise_to_the_peak_and_never_leave_the_bounds(total, warmup, decay):
    part = ScheduleConfig(decay=decay, warmup_steps=warmup, end_learning_rate=0.1)
    rates = [learning_rate(part, 1.0, step, total) for step in range(1, total + 1)]
    assert all(0 <= rate <= 1 for rate in rates)
    rising = rates[: min(warmup, total)]
    falling = rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)


def test_every_schedule_equals_its_formula_over_200_steps():
    """Linear down to the paper's 1e-5, cosine to 0, and BiT's tenth at 30 %, 60 % and 90 %, in float64."""
    steps = np.arange(1, 201)
    warm = np.minimum(1, steps / 20)
    done = np.clip((steps - 20) / 180, 0, 1)
    expected = {
        "linear": (1e-5 + (3e-3 - 1e-5) * (1 - done)) * warm,
        "cosine": 3e-3 * 0.5 * (1 + np.cos(np.pi * done)) * warm,
        "constant": 3e-3 * warm,
        "staircase": 3e-3 * 0.1 ** np.searchsorted([60, 120, 180], steps, side="left") * warm,
    }
    for decay, rates in expected.items():
        end = 1e-5 if decay == "linear" else 0.0
        part = ScheduleConfig(decay=decay, warmup_steps=20, end_learning_rate=end)
        np.testing.assert_allclose([learning_rate(part, 3e-3, step, 200) for step in steps], rates, atol=1e-12)


def test_staircase_with_other_milestones():
    part = ScheduleConfig(decay="staircase", milestones=(0.5,), factor=0.2)
    assert [learning_rate(part, 1.0, step, 4) for step in (1, 2, 3, 4)] == pytest.approx([1, 1, 0.2, 0.2])


def _gradients(steps: int, size: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((steps, size))


def _trained(part: OptimizerConfig, gradients: np.ndarray, start: np.ndarray) -> np.ndarray:
    model = [torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))]
    optimizer = build_optimizer(model, part)
    for step, gradient in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = part.learning_rate * (1 - step / len(gradients))
        model[0].grad = torch.tensor(gradient, dtype=torch.float32)
        optimizer.step()
    return model[0].detach().double().numpy()


def test_adamw_is_adam_with_decoupled_decay():
    part = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1, beta1=0.9, beta2=0.999)
    gradients, weight = _gradients(200, 7), np.linspace(-1, 1, 7)
    trained = _trained(part, gradients, weight)
    first, second = np.zeros(7), np.zeros(7)
    for step, gradient in enumerate(gradients, start=1):
        rate = 1e-2 * (1 - (step - 1) / 200)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        moved = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        weight = weight - rate * moved - rate * 0.1 * weight
    np.testing.assert_allclose(trained, weight, atol=1e-6)


def test_sgd_has_momentum():
    part = OptimizerConfig(kind="sgd", learning_rate=1e-2)
    gradients, weight, velocity = _gradients(200, 5), np.linspace(-1, 1, 5), np.zeros(5)
    trained = _trained(part, gradients, weight)
    for step, gradient in enumerate(gradients):
        velocity = 0.9 * velocity + gradient
        weight = weight - 1e-2 * (1 - step / 200) * velocity
    np.testing.assert_allclose(trained, weight, atol=1e-6)
