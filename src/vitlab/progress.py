"""How far a long task has come, on stderr: a bar on a terminal, elsewhere a plain line every few seconds."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Progress of a task; this base class shows nothing, as the processes other than the first do."""

    def update(self, done: int, text: str = "") -> None:
        """Show that `done` of the total are done, with a short text beside it, such as the current loss."""

    def print(self, line: str) -> None:
        """Print a line of text, above the bar if there is one."""


class _Bar(Progress):
    def __init__(self, bar: RichProgress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def update(self, done: int, text: str = "") -> None:
        self._bar.update(self._task, completed=done, text=text)

    def print(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False)


class _Lines(Progress):
    """Plain lines; the time left is estimated from the first update on, which an interrupted task starts late."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._last = time.monotonic()
        self._first: tuple[float, int] | None = None

    def update(self, done: int, text: str = "") -> None:
        now = time.monotonic()
        begun, before = self._first = self._first or (now, done)
        # The last numbers are always worth a line.
        if now - self._last < SECONDS_BETWEEN_LINES and not (text and done >= self._total):
            return
        self._last = now
        left = f"{duration((now - begun) / (done - before) * (self._total - done))} left" if done > before else ""
        self.print("  ".join(filter(None, (f"{self._title}: {done:,}/{self._total:,}", text, left))))

    def print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A time as people say it, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def show_progress(title: str, total: int) -> Iterator[Progress]:
    """Show the progress of a task of `total` steps, images, ... on stderr while the context is open."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total)
        return
    title_column, text_column = TextColumn("{task.description}"), TextColumn("{task.fields[text]}")
    columns = (title_column, BarColumn(), MofNCompleteColumn(), text_column, TimeRemainingColumn())
    with RichProgress(*columns, console=console) as bar:
        yield _Bar(bar, bar.add_task(title, total=total, text=""))
