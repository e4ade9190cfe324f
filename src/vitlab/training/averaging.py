"""Polyak averaging: the mean of the weights that training went through."""

from collections.abc import Mapping

import torch
from torch import Tensor


class PolyakAverage:
    """Bias-corrected exponential average of weights (paper: section 4.1, Table 2; decay 0.9999).

    After t updates the average is the sum over updates u of (1 - d) d^(t-u) w_u, divided by 1 - d^t:
    a weighted mean of the weights seen, without a share of the random start. Where weights are spread over processes,
    each averages its own part.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.sums = {name: torch.zeros_like(value, requires_grad=False) for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights after one more step of the optimizer into the average."""
        self.updates += 1
        torch._foreach_lerp_(list(self.sums.values()), list(weights.values()), 1 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        assert self.updates > 0, "an average of no updates"
        correction = 1 - self.decay**self.updates
        return {name: value / correction for name, value in self.sums.items()}
