"""One step: from a batch, which is on the device already, to microbatches, and from them to an update of the weights.

Images are varied, normalised and mixed one microbatch at a time. Shapes: B images, H W height and width, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from vitlab.data import loader
from vitlab.data.augmentation.augment import Variation
from vitlab.data.augmentation.device_augment import vary_batch
from vitlab.data.augmentation.mixing import mix_batch
from vitlab.data.loader import Batch
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import ObjectiveConfig, Recipe
from vitlab.runtime import Runtime, all_reduce_on_device
from vitlab.training import objectives, parallel
from vitlab.training.parallel import Replica

Microbatch = tuple[Tensor, Tensor]  # normalised images (B, 3, height, width), and targets (B,) or (B, K)
Microbatches = Sequence[Callable[[], Microbatch]]  # each is made when it is needed
Totals = tuple[Tensor, Tensor, int]  # of a microbatch: summed loss, correct, rows


@dataclass(frozen=True)
class StepResult:
    """What one update shows of this process's images, as they were classified before it.

    Attributes:
        loss: summed over the images.
        correct: how many were classified correctly.
        rows: how many images there were.
        gradient_norm: of the complete gradient, before clipping.
        finite: whether the loss and the gradients of all processes are finite; if not, no weight has moved.
    """

    loss: Tensor
    correct: Tensor
    rows: int
    gradient_norm: Tensor
    finite: Tensor


def update(
    replica: Replica, optimizer: torch.optim.Optimizer, microbatches: Microbatches, rows_of_all: int, *,
    objective: ObjectiveConfig, clip_norm: float, runtime: Runtime,
) -> StepResult:  # fmt: skip
    """Forward and backward pass of every microbatch, clipping by the global norm, one step of the optimizer.

    Args:
        replica: the model; its weights move.
        optimizer: of the replica's weights.
        microbatches: this process's images; an empty microbatch still takes part in collectives.
        rows_of_all: images of all processes together; each has the same weight, whichever process has it.
        objective: what is minimised.
        clip_norm: largest norm of the gradient; 0 does not clip.
        runtime: the processes, and the precision.
    """
    forward_backward = _forward_backward(replica, rows_of_all, objective, runtime)
    optimizer.zero_grad(set_to_none=True)
    losses, correct, rows = zip(*chain(*replica.map(forward_backward, microbatches)), strict=True)
    loss = torch.stack(losses).sum()
    norm = parallel.global_norm(replica, parallel.collect_gradients(replica), runtime)
    if clip_norm:
        torch.nn.utils.clip_grads_with_norm_(replica.weights.values(), clip_norm, norm, foreach=True)
    not_finite = ~(torch.isfinite(loss) & torch.isfinite(norm))
    finite = all_reduce_on_device(runtime, not_finite.float()) == 0
    _step(optimizer, finite)
    return StepResult(loss, torch.stack(correct).sum(), sum(rows), norm, finite)


def _forward_backward(
    replica: Replica, rows_of_all: int, objective: ObjectiveConfig, runtime: Runtime
) -> Callable[[nn.Module, Microbatches], list[Totals]]:
    """The forward and backward pass of one model over its microbatches; gradients are left in its parameters."""

    def forward_backward(model: nn.Module, microbatches: Microbatches) -> list[Totals]:
        totals = []
        for number, microbatch in enumerate(microbatches, start=1):
            images_BCHW, targets = microbatch()
            with parallel.gradient_sync(replica, last=number == len(microbatches)):
                with runtime.autocast():
                    logits_BK = model(images_BCHW)
                loss = objectives.total(logits_BK, targets, objective)
                # Gradients of the processes are averaged, hence the factor: each image weighs 1 / rows_of_all.
                (loss * (runtime.ranks / rows_of_all)).backward()  # type: ignore[no-untyped-call]
            totals.append((loss.detach(), objectives.correct(logits_BK.detach(), targets), len(images_BCHW)))
        return totals

    return forward_backward


def _step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Step if everything is finite. On CUDA the device itself decides, so that the host need not wait to know."""
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


@dataclass(frozen=True)
class MicrobatchMaker:
    """Divides every batch of a run alike.

    Attributes:
        recipe: how images are varied and mixed.
        preprocessing: the model's.
        classes: K.
        runtime: the processes.
        count: microbatches that this process's share of a batch is divided into.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    classes: int
    runtime: Runtime
    count: int

    def of(self, batch: Batch) -> list[partial[Microbatch]]:
        """The microbatches, each of which is computed when it is called; some may be empty."""
        if self.recipe.augmentation.mixes:
            images_BCHW, targets_BK = self._mixed(batch)
            divided = zip(images_BCHW.tensor_split(self.count), targets_BK.tensor_split(self.count), strict=True)
            return [partial(_unchanged, images, targets) for images, targets in divided]
        begin, made = 0, []
        images, labels = batch.images_BHWC.tensor_split(self.count), batch.labels_B.tensor_split(self.count)
        for images_BHWC, labels_B in zip(images, labels, strict=True):
            variations = batch.variations[begin : begin + len(labels_B)]
            made.append(partial(self._varied, images_BHWC, labels_B, variations))
            begin += len(labels_B)
        return made

    def _varied(self, images_BHWC: Tensor, labels_B: Tensor, variations: Sequence[Variation]) -> Microbatch:
        if variations:
            images_BHWC = vary_batch(images_BHWC, variations)
        return loader.normalise(images_BHWC, self.preprocessing, images_BHWC.device), labels_B

    def _mixed(self, batch: Batch) -> Microbatch:
        """Mixup and CutMix of this process's images: pairs are of neighbours, which no division separates."""
        share = self.recipe.batch_size // self.runtime.ranks
        images_BCHW, labels_B = self._varied(batch.images_BHWC, batch.labels_B, batch.variations)
        return mix_batch(
            images_BCHW, labels_B, self.classes, self.recipe.augmentation,
            seed=self.recipe.seed, step=batch.step, batch_size=share,
            positions_N=batch.positions_B.numpy() - self.runtime.rank * share,
        )  # fmt: skip


def _unchanged(images_BCHW: Tensor, targets: Tensor) -> Microbatch:
    return images_BCHW, targets
