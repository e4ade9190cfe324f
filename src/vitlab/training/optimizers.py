"""How weights are updated: optimizers, learning-rate schedules, and Polyak averaging."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vitlab.recipes.schema import OptimizerConfig, ScheduleConfig


def build_optimizer(weights: Iterable[Tensor], part: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (the paper's Adam with decoupled decay, on all parameters) or SGD with momentum 0.9.

    The decay of a step is learning rate times weight decay times the weight, as in the original's Adam.
    """
    trained = [weight for weight in weights if weight.requires_grad]
    groups = _groups(trained, part) if part.decay_kernels_only else trained
    if part.kind == "adamw":
        betas = (part.beta1, part.beta2)
        return torch.optim.AdamW(groups, part.learning_rate, betas, 1e-8, part.weight_decay, fused=True)
    return torch.optim.SGD(groups, part.learning_rate, 0.9, weight_decay=part.weight_decay, fused=True)


def _groups(weights: list[Tensor], part: OptimizerConfig) -> list[dict[str, Any]]:
    """Kernels with the decay, the rest without.

    Dense kernels have two dimensions, convolutions four; biases and norms one, class token and position tables three.
    """
    kernels = [weight for weight in weights if weight.dim() in (2, 4)]
    others = [weight for weight in weights if weight.dim() not in (2, 4)]
    decays = ((kernels, part.weight_decay), (others, 0.0))
    return [{"params": some, "weight_decay": decay} for some, decay in decays if some]


def learning_rate(part: ScheduleConfig, peak: float, step: int, total_steps: int) -> float:
    """The learning rate of update `step`, counted from 1: a linear warm-up times a decay (paper: Tables 3 and 4).

    With t = (step - warm-up) / (total - warm-up) kept in [0, 1], linear is end + (peak - end)(1 - t) and cosine
    end + (peak - end)(1 + cos(pi t)) / 2. Staircase is peak times `factor` for every milestone, a share of the complete
    run, that was passed (BiT-HyperRule: a tenth at 30 %, 60 % and 90 %). All are times min(1, step / warm-up).
    """
    warmup = min(1.0, step / part.warmup_steps) if part.warmup_steps else 1.0
    if part.decay == "staircase":
        passed = sum(step > milestone * total_steps for milestone in part.milestones)
        return peak * part.factor**passed * warmup
    after = max(1, total_steps - part.warmup_steps)
    done = min(max((step - part.warmup_steps) / after, 0.0), 1.0)
    shape = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[part.decay]
    return (part.end_learning_rate + (peak - part.end_learning_rate) * shape) * warmup


class PolyakAverage:
    """Bias-corrected exponential average of weights (paper: section 4.1, Table 2; decay 0.9999).

    After t updates the average is the sum over updates u of (1 - d) d^(t-u) w_u, divided by 1 - d^t:
    a weighted mean of the weights seen, without a share of the random start. It is kept as that mean, not as the sum,
    which the division would magnify with its rounding: m_t = m_(t-1) + (w_t - m_(t-1)) (1 - d) / (1 - d^t). Where
    weights are sharded over processes, each averages its own shards.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.means = {name: torch.zeros_like(value, requires_grad=False) for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights after one more step of the optimizer into the average."""
        self.updates += 1
        share = (1 - self.decay) / (1 - self.decay**self.updates)
        torch._foreach_lerp_(list(self.means.values()), list(weights.values()), share)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name; live, not to be written to."""
        assert self.updates > 0, "an average of no updates"
        return dict(self.means)
