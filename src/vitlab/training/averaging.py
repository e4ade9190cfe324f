"""Polyak averaging: the mean of the weights that training went through."""

from collections.abc import Mapping

import torch
from torch import Tensor


class PolyakAverage:
    """Bias-corrected exponential average of weights (paper: section 4.1, Table 2; decay 0.9999).

    After t updates the average is the sum over updates u of (1 - d) d^(t-u) w_u, divided by 1 - d^t:
    a weighted mean of the weights seen, without a share of the random start. It is kept as that mean, not as the sum,
    which the division would magnify with its rounding: m_t = m_(t-1) + (w_t - m_(t-1)) (1 - d) / (1 - d^t). Where
    weights are spread over processes, each averages its own part.
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
