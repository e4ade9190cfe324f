"""One update of the weights, free of input and output."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitlab.recipes.schema import ObjectivePart
from vitlab.runtime import Runtime
from vitlab.training import objectives


class Diverged(Exception):
    """The loss or a gradient is not a number; the weights were left as they were before the step."""


@dataclass(frozen=True)
class StepResult:
    """What one update shows: loss and accuracy on its batch before the update, and the gradients' global norm."""

    loss: Tensor
    accuracy: Tensor
    gradient_norm: Tensor


def update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images_BCHW: Tensor,
    labels_B: Tensor,
    *,
    objective: ObjectivePart,
    clip_norm: float,
    runtime: Runtime,
) -> StepResult:
    """Forward, backward, clip by global norm, step.

    Raises:
        Diverged: before the weights move, if the loss or a gradient is NaN or infinite.
    """
    optimizer.zero_grad(set_to_none=True)
    with runtime.autocast():
        logits_BK = model(images_BCHW)
    loss = objectives.loss(logits_BK, labels_B, objective)
    loss.backward()  # type: ignore[no-untyped-call]
    loss = loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm or float("inf"), foreach=True)
    if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
        raise Diverged(f"loss {float(loss):g}, gradient norm {float(norm):g}")
    optimizer.step()
    accuracy = (logits_BK.detach().argmax(-1) == labels_B).float().mean()
    return StepResult(loss, accuracy, norm)
