"""Progress of a run on stderr: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class StepMetrics:
    """The metrics shown and logged at a step: means over the steps since the last ones.

    Attributes:
        step: updates done.
        loss, accuracy: of the training images, each as classified before its update.
        images_per_second: of all processes.
        learning_rate: of the step.
        data_wait: share of the time that training waited for images.
        memory_bytes: peak memory of tensors on a GPU; memory of the process elsewhere.
        seconds_left: at this speed.
        mfu: model FLOPs utilisation, a share of the devices' bfloat16 peak; None if no peak is known.
        energy_joules: energy of the run's GPUs since the last such number, without evaluations; None if unknown.
    """

    step: int
    loss: float
    accuracy: float
    images_per_second: float
    learning_rate: float
    data_wait: float = 0.0
    memory_bytes: int = 0
    seconds_left: float = 0.0
    mfu: float | None = None
    energy_joules: float | None = None

    def numbers(self) -> dict[str, float]:
        """As they are logged, without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def text(self) -> str:
        """As they are shown."""
        mfu = "" if self.mfu is None else f"  mfu {self.mfu:.0%}"
        return (
            f"loss {self.loss:.3f}  acc {self.accuracy:.1%}  lr {self.learning_rate:.2g}  "
            f"{self.images_per_second:,.0f} img/s{mfu}  wait {self.data_wait:.0%}  {self.memory_bytes / 1e9:.1f} GB"
        )


class Display:
    """Shows the progress of a run; this one shows nothing."""

    def show(self, now: StepMetrics) -> None:
        """Show the metrics of a step."""

    def say(self, text: str) -> None:
        """Show a line of text."""


class _Bar(Display):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress = progress
        self.task = task

    def show(self, now: StepMetrics) -> None:
        self.progress.update(self.task, completed=now.step, numbers=now.text())

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False, markup=False)


class _Lines(Display):
    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.last = time.monotonic()

    def show(self, now: StepMetrics) -> None:
        seconds = time.monotonic()
        if seconds - self.last < SECONDS_BETWEEN_LINES and now.step < self.total:
            return
        self.last = seconds
        self.say(f"{self.title}: step {now.step}/{self.total}  {now.text()}  {duration(now.seconds_left)} left")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A duration in the unit that suits it, such as "40 s", "12 min" or "3.5 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def display(title: str, total: int) -> Iterator[Display]:
    """A live bar if stderr is a terminal, else a plain line every few seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(title, total)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total, numbers="")
        yield _Bar(progress, task)
