"""How the processes of a run stop together: a signal asks for it, and before every step all exchange their state.

SIGINT and SIGTERM ask the training loop to save and leave at the next safe point; all processes stop at the same step,
or none does. A handful of numbers go over the host's network; nobody waits for the device.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from vitlab.data.loader import Batch
from vitlab.errors import UserError
from vitlab.runtime import Runtime, all_gather_text, all_reduce_sum
from vitlab.training.checkpoint import CheckpointWriter

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Cancelled(Exception):
    """A signal came inside `StopRequest.cancelling`."""


class StopRequest:
    """The signal that came, if any. The handler only notes it, except while work may be cancelled."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._may_cancel = False

    def note(self, signal_number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.signal = signal_number
        if self._may_cancel:
            self._may_cancel = False
            raise Cancelled

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """Inside, a signal ends the work at once by `Cancelled`: for work that changes nothing, such as evaluation."""
        if self.signal is not None:
            raise Cancelled
        try:
            self._may_cancel = True
            yield
        finally:
            self._may_cancel = False


@contextmanager
def watching(request: StopRequest) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM are noted in `request` instead of ending the process.

    Only a process's main thread can do so; in another thread nothing is watched.
    """
    previous = {}
    try:
        for number in SIGNALS:
            previous[number] = signal.signal(number, request.note)
    except ValueError:
        assert not previous
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Synced:
    """What all processes know before a step.

    Attributes:
        rows: images of the step, over all processes.
        skipped: images of the step that could not be read.
        signal: one that a process received; None if there was none.
    """

    rows: int
    skipped: int
    signal: int | None


class RankSync:
    """Exchanges the state of this process with the others.

    Args:
        runtime: the processes.
        request: the signal that this process received, if any.
        writer: writes its checkpoints.
    """

    def __init__(self, runtime: Runtime, request: StopRequest, writer: CheckpointWriter) -> None:
        self._runtime, self._request, self._writer = runtime, request, writer

    def over(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Synced]]:
        """Every batch, once all processes have theirs.

        Raises:
            UserError: one of them cannot read an image or write a checkpoint; raised in all, with the same message.
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

    def ask(self, rows: int = 0, skipped: int = 0, mistake: str = "") -> Synced:
        """Exchange the state. All processes must call this equally often.

        Raises:
            UserError: the mistake of one of them.
        """
        mistake = mistake or self._writer.problem()
        if self._runtime.ranks == 1:
            if mistake:
                raise UserError(mistake)
            return Synced(rows, skipped, self._request.signal)
        came = [self._request.signal == number for number in SIGNALS]
        own = (rows, skipped, *came, bool(mistake), self._writer.is_idle)
        all_rows, all_skipped, interrupted, terminated, mistaken, idle = all_reduce_sum(self._runtime, own)
        if mistaken:
            raise UserError(next(text for text in all_gather_text(self._runtime, mistake) if text))
        if idle == self._runtime.ranks and self._writer.awaits_others:
            self._writer.all_are_idle()
        sent = signal.SIGTERM if terminated else signal.SIGINT if interrupted else None
        return Synced(int(all_rows), int(all_skipped), sent)

    def settle(self) -> None:
        """Wait until the newest checkpoint is complete on the disk.

        Raises:
            UserError: it could not be written.
        """
        self._writer.wait()
        awaited = self._writer.awaits_others
        self.ask()
        if awaited:
            self._writer.wait()
            self.ask()
