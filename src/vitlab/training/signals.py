"""SIGINT and SIGTERM ask the training loop to save and leave at the next safe point."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

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
