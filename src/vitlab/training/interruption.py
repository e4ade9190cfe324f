"""SIGINT and SIGTERM ask the loop to save and leave at the next safe point."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupted(Exception):
    """The run was asked to stop, and its state is saved."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped after step {step}; --resume goes on from there")
        self.exit_code = EXIT_CODES.get(signal.Signals(signal_number), 128 + signal_number)


class BrokenOff(Exception):
    """A signal came inside `StopRequest.breaking_off`."""


class StopRequest:
    """The signal that came, if any. The handler only notes it, but where work may be broken off."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._may_break_off = False

    def note(self, signal_number: int, frame: FrameType | None) -> None:
        """The signal handler."""
        self.signal = signal_number
        if self._may_break_off:
            self._may_break_off = False
            raise BrokenOff

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Inside, a signal ends the work at once by `BrokenOff`: for work that changes nothing, such as evaluation."""
        if self.signal is not None:
            raise BrokenOff
        try:
            self._may_break_off = True
            yield
        finally:
            self._may_break_off = False


@contextmanager
def watching() -> Iterator[StopRequest]:
    """Inside, the first SIGINT or SIGTERM is noted instead of ending the process.

    Only a process's main thread may do so; in another thread nothing is watched.
    """
    request = StopRequest()
    previous = {}
    try:
        for number in EXIT_CODES:
            previous[number] = signal.signal(number, request.note)
    except ValueError:
        assert not previous
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
