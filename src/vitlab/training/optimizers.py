"""How weights move: optimizers, learning-rate schedules and Polyak averaging."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitlab.recipes.schema import OptimizerPart, SchedulePart


def build_optimizer(model: nn.Module, part: OptimizerPart) -> torch.optim.Optimizer:
    """AdamW (the paper's Adam with decoupled decay, on all parameters) or SGD with momentum 0.9.

    The decay of a step is learning rate times weight decay times the weight, as in the original's Adam.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if part.kind == "adamw":
        betas = (part.beta1, part.beta2)
        return torch.optim.AdamW(parameters, part.learning_rate, betas, 1e-8, part.weight_decay, fused=True)
    return torch.optim.SGD(parameters, part.learning_rate, 0.9, weight_decay=part.weight_decay, fused=True)


def learning_rate(part: SchedulePart, peak: float, step: int, total_steps: int) -> float:
    """The learning rate of update `step`, counted from 1: a linear warm-up times a decay (paper: Tables 3 and 4).

    With t = (step - warm-up) / (total - warm-up) kept in [0, 1], linear is end + (peak - end)(1 - t) and cosine
    end + (peak - end)(1 + cos(pi t)) / 2; both times min(1, step / warm-up).
    """
    after = max(1, total_steps - part.warmup_steps)
    done = min(max((step - part.warmup_steps) / after, 0.0), 1.0)
    shape = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[part.decay]
    warmup = min(1.0, step / part.warmup_steps) if part.warmup_steps else 1.0
    return (part.end_learning_rate + (peak - part.end_learning_rate) * shape) * warmup


class PolyakAverage:
    """Bias-corrected exponential average of a model's weights (paper: section 4.1, Table 2; decay 0.9999).

    After t updates the average is the sum over updates u of (1 - d) d^(t-u) w_u, divided by 1 - d^t:
    a weighted mean of the weights seen, without a share of the random start.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.sums = {name: torch.zeros_like(value) for name, value in _averaged(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights after one more step of the optimizer into the average."""
        self.updates += 1
        values = [value for _, value in _averaged(model)]
        torch._foreach_lerp_(list(self.sums.values()), values, 1 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        assert self.updates > 0, "an average of no updates"
        correction = 1 - self.decay**self.updates
        return {name: value / correction for name, value in self.sums.items()}

    def give_to(self, model: nn.Module) -> None:
        """The model has the averaged weights from now on."""
        _copy(self.weights(), model)

    @contextmanager
    def lent_to(self, model: nn.Module) -> Iterator[None]:
        """Inside, the model has the averaged weights; after, its own again, bit for bit."""
        own = {name: value.detach().clone() for name, value in _averaged(model)}
        try:
            self.give_to(model)
            yield
        finally:
            _copy(own, model)


def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()


@torch.no_grad()
def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(values[name])
