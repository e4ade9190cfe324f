"""One update: parts add up to the batch, the gradient is clipped as a whole, what is no number moves nothing."""

import math

import pytest
import torch
from torch import nn

from rounding import assert_same_but_for_rounding
from vitlab.recipes.schema import ObjectiveConfig, OptimizerConfig
from vitlab.runtime import choose
from vitlab.training.optimizers import build_optimizer
from vitlab.training.parallel import Replica
from vitlab.training.step import StepResult, set_learning_rate, update

CPU = choose("cpu")
IMAGES = torch.randn(12, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 5
LONGEST_SUM = 48  # 3 channels x 4 x 4 pixels, in the first layer


def _replica() -> Replica:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.Linear(16, 5))
    return Replica(model, dict(model.named_parameters()), {}, None)


def _update(replica: Replica, sizes: list[int], *, clip_norm: float = 0.0, images=IMAGES, optimizer=None) -> StepResult:
    parts = [lambda i=i, t=t: (i, t) for i, t in zip(images.split(sizes), LABELS.split(sizes), strict=True)]
    optimizer = optimizer or build_optimizer(replica.weights.values(), OptimizerConfig(kind="sgd", learning_rate=0.1))
    return update(replica, optimizer, parts, 12, objective=ObjectiveConfig(), clip_norm=clip_norm, runtime=CPU)


@pytest.mark.parametrize("sizes", [[6, 6], [4, 4, 4], [1, 11], [5, 0, 7]])
def test_parts_of_any_size_are_the_whole_batch(sizes):
    whole, cut = _replica(), _replica()
    expected, result = _update(whole, [12]), _update(cut, sizes)
    assert_same_but_for_rounding(cut.weights, whole.weights, _replica().weights, steps=1, terms=LONGEST_SUM)
    torch.testing.assert_close(result.loss, expected.loss)
    torch.testing.assert_close(result.gradient_norm, expected.gradient_norm)
    assert (int(result.correct), result.rows) == (int(expected.correct), 12)


def test_the_step_is_the_mean_gradients():
    """Against a float64 model, with the mean loss of plain PyTorch."""
    replica = _replica()
    reference = _replica().model.double()
    _update(replica, [12])
    nn.functional.cross_entropy(reference(IMAGES.double()), LABELS).backward()
    expected = {name: weight.detach() - 0.1 * weight.grad for name, weight in reference.named_parameters()}
    assert_same_but_for_rounding(replica.weights, expected, _replica().weights, steps=1, terms=LONGEST_SUM)


def test_the_norm_of_all_gradients_together_is_clipped():
    free, clipped = _replica(), _replica()
    before = {name: weight.detach().clone() for name, weight in free.weights.items()}
    norm = float(_update(free, [12]).gradient_norm)
    result = _update(clipped, [3, 9], clip_norm=norm / 4)
    assert float(result.gradient_norm) == pytest.approx(norm, rel=1e-5)
    moved = [clipped.weights[name].detach() - before[name] for name in before]
    assert math.sqrt(sum(float(m.square().sum()) for m in moved)) == pytest.approx(0.1 * norm / 4, rel=1e-4)
    quarter = {name: start + (free.weights[name].detach() - start) / 4 for name, start in before.items()}
    assert_same_but_for_rounding(clipped.weights, quarter, before, steps=1, terms=LONGEST_SUM)


def test_a_small_gradient_is_not_clipped():
    free, clipped = _replica(), _replica()
    _update(free, [12])
    _update(clipped, [12], clip_norm=1e6)
    for name, weight in free.weights.items():
        assert torch.equal(clipped.weights[name], weight)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_what_is_no_number_moves_nothing(bad, kind):
    replica = _replica()
    optimizer = build_optimizer(replica.weights.values(), OptimizerConfig(kind=kind))
    _update(replica, [12], optimizer=optimizer)
    before = {name: weight.detach().clone() for name, weight in replica.weights.items()}
    images = IMAGES.clone()
    images[7, 0, 0, 0] = bad
    assert not bool(_update(replica, [6, 6], clip_norm=1.0, images=images, optimizer=optimizer).finite)
    for name, weight in replica.weights.items():
        assert torch.equal(weight, before[name])


def test_the_rate_is_set_for_all_groups():
    weights = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))]
    optimizer = build_optimizer(weights, OptimizerConfig(decay_kernels_only=True, weight_decay=0.1))
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]
