"""Before every step the processes of a run tell each other how they are, so that all stop at the same step or none.

A handful of numbers go over the host's network; the device is not waited for.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

from vitlab.data.loader import Batch
from vitlab.errors import UserError
from vitlab.runtime import Runtime, all_gather_text, all_reduce_sum
from vitlab.training.interruption import StopRequest
from vitlab.training.saving import Saver


@dataclass(frozen=True)
class Agreed:
    """What all processes know before a step.

    Attributes:
        rows: images of the step, over all processes.
        skipped: images of the step that could not be read.
        signal: what one of them was sent, if any.
    """

    rows: int
    skipped: int
    signal: int | None


class Agreement:
    """What this process tells, and what comes of it.

    Args:
        runtime: the processes.
        request: a signal that this one may have been sent.
        saver: how its checkpoints do.
    """

    def __init__(self, runtime: Runtime, request: StopRequest, saver: Saver) -> None:
        self._runtime, self._request, self._saver = runtime, request, saver

    def over(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Agreed]]:
        """Every batch, once all processes have theirs.

        Raises:
            UserError: one of them cannot read an image, or write a checkpoint: in all of them, in the same words.
        """
        while True:
            batch, mistake = None, ""
            try:
                batch = next(batches, None)
            except UserError as error:
                mistake = str(error)
            if batch is None:
                if not mistake:
                    return
                self.ask(mistake=mistake)
            else:
                yield batch, self.ask(len(batch.labels_B), len(batch.skipped))

    def ask(self, rows: int = 0, skipped: int = 0, mistake: str = "") -> Agreed:
        """Tell, and hear. All processes must ask equally often.

        Raises:
            UserError: the mistake of one of them.
        """
        mistake = mistake or self._saver.problem()
        if self._runtime.ranks == 1:
            if mistake:
                raise UserError(mistake)
            return Agreed(rows, skipped, self._request.signal)
        own = (rows, skipped, self._sent(signal.SIGINT), self._sent(signal.SIGTERM), bool(mistake), self._saver.is_down)
        all_rows, all_skipped, interrupted, terminated, mistaken, down = all_reduce_sum(self._runtime, own)
        if mistaken:
            raise UserError(next(text for text in all_gather_text(self._runtime, mistake) if text))
        if down == self._runtime.ranks and self._saver.awaits_others:
            self._saver.all_are_down()
        sent = signal.SIGTERM if terminated else signal.SIGINT if interrupted else None
        return Agreed(int(all_rows), int(all_skipped), sent)

    def settle(self) -> None:
        """Wait until the newest checkpoint is on the disk, in place.

        Raises:
            UserError: it could not be written.
        """
        self._saver.wait()
        awaited = self._saver.awaits_others
        self.ask()
        if awaited:
            self._saver.wait()
            self.ask()

    def _sent(self, number: int) -> bool:
        return self._request.signal == number
