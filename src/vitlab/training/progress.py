"""What a person sees while a run goes on: a live bar on a terminal, plain lines elsewhere, on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Moment:
    """The numbers worth seeing at a step."""

    step: int
    loss: float
    accuracy: float
    images_per_second: float
    learning_rate: float


class Display:
    """Shows moments; this one shows nothing."""

    def show(self, moment: Moment) -> None:
        """Show the numbers of a step."""

    def say(self, text: str) -> None:
        """Show a line of text."""


class _Bar(Display):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress = progress
        self.task = task

    def show(self, moment: Moment) -> None:
        numbers = f"loss {moment.loss:.3f}  acc {moment.accuracy:.1%}  {moment.images_per_second:,.0f} img/s"
        self.progress.update(self.task, completed=moment.step, numbers=numbers)

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)


class _Lines(Display):
    def __init__(self, title: str, total: int, first: int) -> None:
        self.title = title
        self.total = total
        self.first = first
        self.begun = self.last = time.monotonic()

    def show(self, moment: Moment) -> None:
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES and moment.step < self.total:
            return
        self.last = now
        left = (now - self.begun) / max(1, moment.step - self.first) * (self.total - moment.step)
        self.say(
            f"{self.title}: step {moment.step}/{self.total}  loss {moment.loss:.3f}  acc {moment.accuracy:.1%}  "
            f"{moment.images_per_second:,.0f} img/s  {left:.0f} s left"
        )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


@contextmanager
def display(title: str, total: int, first: int = 0) -> Iterator[Display]:
    """A live bar if stderr is a terminal, else a plain line every some seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total, first)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, completed=first, numbers="")
        yield _Bar(progress, task)
