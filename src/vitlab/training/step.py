"""One update of the weights, free of input and output."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitlab.recipes.schema import ObjectiveConfig
from vitlab.runtime import Runtime, all_reduce_on_device
from vitlab.training import objectives, parallel
from vitlab.training.parallel import Replica

Part = tuple[Tensor, Tensor]  # normalised images (B, 3, height, width), and targets (B,) or (B, K)
Parts = Sequence[Callable[[], Part]]  # made one after the other, when their turn comes


@dataclass(frozen=True)
class StepResult:
    """What one update shows of this process's images, before the update.

    Attributes:
        loss: summed over the images.
        hits: how many were named rightly.
        rows: how many images there were.
        gradient_norm: of the whole gradient, before clipping.
        finite: whether loss and gradients of all processes are numbers; where not, no weight has moved.
    """

    loss: Tensor
    hits: Tensor
    rows: int
    gradient_norm: Tensor
    finite: Tensor


def update(
    replica: Replica,
    optimizer: torch.optim.Optimizer,
    parts: Parts,
    rows_of_all: int,
    *,
    objective: ObjectiveConfig,
    clip_norm: float,
    runtime: Runtime,
) -> StepResult:
    """Forward and backward of every part, clip by global norm, step.

    Args:
        replica: the model; its weights move.
        optimizer: of the replica's weights.
        parts: this process's images in pieces, one lane's after another's; an empty part takes part in exchanges.
        rows_of_all: images of all processes together: each counts the same, wherever it is.
        objective: what is minimised.
        clip_norm: largest norm of the gradient; 0 does not clip.
        runtime: the processes, and the precision.
    """
    with replica.lanes.on_own_cores() if replica.lanes else nullcontext():
        optimizer.zero_grad(set_to_none=True)
        loss, hits, rows = _backward(replica, parts, rows_of_all, objective, runtime)
        gradients = parallel.collect_gradients(replica)
        norm = parallel.global_norm(replica, gradients, runtime)
        if clip_norm:
            torch.nn.utils.clip_grads_with_norm_(replica.weights.values(), clip_norm, norm, foreach=True)
        wrong = ~(torch.isfinite(loss) & torch.isfinite(norm))
        finite = all_reduce_on_device(runtime, wrong.float()) == 0
        _move(optimizer, finite)
    return StepResult(loss, hits, rows, norm, finite)


def _backward(
    replica: Replica, parts: Parts, rows_of_all: int, objective: ObjectiveConfig, runtime: Runtime
) -> tuple[Tensor, Tensor, int]:
    """Loss and hits, summed over this process's images, and how many those are; gradients are left behind."""

    def of_some(model: nn.Module, parts: Parts) -> list[tuple[Tensor, Tensor, int]]:
        seen = []
        for number, part in enumerate(parts, start=1):
            images_BCHW, targets = part()
            with parallel.without_exchange(replica, last=number == len(parts)):
                with runtime.autocast():
                    logits_BK = model(images_BCHW)
                loss = objectives.total(logits_BK, targets, objective)
                # Gradients of the processes are averaged, hence the factor: each image weighs 1 / rows_of_all.
                (loss * (runtime.ranks / rows_of_all)).backward()  # type: ignore[no-untyped-call]
            seen.append((loss.detach(), objectives.hits(logits_BK.detach(), targets), len(images_BCHW)))
        return seen

    by_lane = replica.lanes.run(of_some, parts) if replica.lanes else [of_some(replica.model, parts)]
    losses, hits, rows = zip(*(part for lane in by_lane for part in lane), strict=True)
    return torch.stack(losses).sum(), torch.stack(hits).sum(), sum(rows)


def _move(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step where all is finite. On CUDA the device itself decides, so that the host need not wait to know."""
    if finite.is_cuda:
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.grad_scale = None  # type: ignore[attr-defined]
        optimizer.step()
    elif bool(finite):
        optimizer.step()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For all weights, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
