"""A loss or a gradient that is not finite ends training before any weight changes."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from vitlab.data.loader import Batch
from vitlab.data.sources import Source
from vitlab.errors import TrainingFailed, UserError
from vitlab.runtime import Runtime, all_gather_text
from vitlab.training.step import StepResult

NAMED = 4


class Diverged(TrainingFailed):
    """The loss or a gradient is not a number; all processes know it at the same step."""


@dataclass(frozen=True, eq=False)
class _Pending:
    step: int
    batch: Batch
    result: StepResult
    finite: Tensor
    arrived: torch.cuda.Event | None


class FiniteWatch:
    """Checks every step.

    On CUDA it does so one step late, so that the device is never idle meanwhile; the device itself has left the
    weights unchanged.

    Args:
        source: names the images.
        runtime: the processes; all come to the same result.
    """

    def __init__(self, source: Source, runtime: Runtime) -> None:
        self._source, self._runtime = source, runtime
        self._pending: deque[_Pending] = deque()
        self._late = 1 if runtime.device.type == "cuda" else 0

    def note(self, step: int, batch: Batch, result: StepResult) -> None:
        """Add a step, and check the one that is due.

        Raises:
            Diverged: its loss or its gradient is not a number.
        """
        finite, arrived = result.finite, None
        if finite.is_cuda:
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            finite = torch.empty_like(finite, device="cpu", pin_memory=True).copy_(finite, non_blocking=True)
            arrived.record()
        self._pending.append(_Pending(step, batch, result, finite, arrived))
        self._look(self._late)

    def settle(self) -> None:
        """Check all steps; to be called before anything is saved, evaluated or shown.

        Raises:
            Diverged: a loss or a gradient is not a number.
        """
        self._look(0)

    def _look(self, left: int) -> None:
        while len(self._pending) > left:
            pending = self._pending.popleft()
            if pending.arrived is not None:
                pending.arrived.synchronize()
            if not bool(pending.finite):
                raise self._failure(pending)

    def _failure(self, pending: _Pending) -> Diverged:
        loss = float(pending.result.loss) / max(1, pending.result.rows)
        own = self._images(pending.batch)
        blamed = [
            text for text in all_gather_text(self._runtime, "" if loss - loss == 0 else f"loss {loss:g}; {own}") if text
        ]
        all_of_them = all_gather_text(self._runtime, f"gradient norm {float(pending.result.gradient_norm):g}; {own}")
        return Diverged(
            f"step {pending.step}: {(blamed or all_of_them)[0]}; this step changed nothing. "
            "Try a lower optimizer.learning_rate or a longer schedule.warmup_steps"
        )

    def _images(self, batch: Batch) -> str:
        indices = batch.indices_B.tolist()
        named = []
        for index in indices[:NAMED]:
            try:
                named.append(f"{index} ({self._source.read(index).name})")
            except UserError:
                named.append(str(index))
        return f"images {', '.join(named)}{', ...' if len(indices) > NAMED else ''} of the training set"
