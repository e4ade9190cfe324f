"""What `pretrain`, `finetune` and `demo` share: from a recipe to a finished run with its results."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from vitlab.cli.output import ResultTable, store
from vitlab.data.sources import Source, keyed_split, select
from vitlab.datasets.catalog import known_as, open_source
from vitlab.dedup.clean_list import without
from vitlab.errors import UserError
from vitlab.evaluation import accuracy
from vitlab.evaluation.accuracy_table import accuracy_table
from vitlab.models.build import Model
from vitlab.recipes.schema import DataConfig, Recipe, with_changes
from vitlab.runtime import RankLost, Runtime, choose, environment, process_group, raise_on_all
from vitlab.training.initial_model import initial_model
from vitlab.training.interruption import Interrupted
from vitlab.training.loop import TrainingFailed, train
from vitlab.training.progress import Display, display
from vitlab.training.run_directory import RunDirectory, open_run


@dataclass(frozen=True)
class Changes:
    """What the command line changes of a recipe."""

    data: str | None = None
    steps: int | None = None
    seed: int | None = None
    assignments: tuple[str, ...] = ()

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes."""
        assignments = list(self.assignments)
        if self.data is not None:
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": self.data})})
        if self.steps is not None:
            assignments.append(f"steps={self.steps}")
        if self.seed is not None:
            assignments.append(f"seed={self.seed}")
        changed = with_changes(recipe, assignments)
        if not changed.data.source:
            raise UserError(
                "no images were named: add --data SOURCE (a data set's name, an image folder or tar shards)"
            )
        return changed


def scale_assignments(batch: str | None, log: str | None) -> list[str]:
    """What --batch and --log change of a recipe: "auto" keeps the batch, and cuts it into parts that fit."""
    sized = [] if batch is None else ["scale.accumulation=auto" if batch == "auto" else f"batch_size={batch}"]
    return sized if log is None else [*sized, f"log={log}"]


def run(recipe: Recipe, out: Path | None, *, resume: bool, device: str, title: str) -> ResultTable:
    """Train by the recipe, evaluate on the test images, and leave a run's folder behind.

    Everything that can be wrong with the recipe, the data or the weights is found before the folder is made. Processes
    that torchrun started are one run: the first one prints and returns, the others end here.
    """
    folder = out if out is not None else Path("runs") / recipe.name
    # A process that torchrun has started anew goes on with what its predecessor left.
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    is_first = int(os.environ.get("RANK", "0")) == 0
    try:
        with process_group(choose(device)) as runtime:
            table = _run(recipe, folder, runtime, resume, title)
    except (Interrupted, TrainingFailed, RankLost) as end:
        if is_first:
            print(f"vitlab: {folder}: {end}", file=sys.stderr)
        raise typer.Exit(exit_code(end)) from None
    except UserError as mistake:
        if is_first:
            raise
        raise typer.Exit(exit_code(mistake)) from None
    if table is None:
        raise typer.Exit(0)
    return table


def exit_code(end: Exception) -> int:
    """Of a run that did not finish: 130 or 143 on a signal, 3 where training failed, 2 on a mistake, 1 otherwise."""
    if isinstance(end, Interrupted):
        return end.exit_code
    if isinstance(end, UserError):
        return 2
    return 3 if isinstance(end, TrainingFailed) else 1


def _run(recipe: Recipe, folder: Path, runtime: Runtime, resume: bool, title: str) -> ResultTable | None:
    """The result is there in the first process alone."""
    with raise_on_all(runtime):
        train_source, test_source = _sources(recipe.data, tell=runtime.is_first)
        model = initial_model(recipe, train_source.classes)
        train_source, judge = _held_out(recipe, train_source, test_source, runtime)
    steps = recipe.total_steps(len(train_source))
    with _opened(recipe, folder, train_source.fingerprint, runtime, resume) as directory:
        with _shown(title, steps, runtime) as shown:
            trained = train(
                recipe, model, model.preprocessing, train_source, directory,
                runtime=runtime, display=shown, hooks=[judge],
            )  # fmt: skip
        if not runtime.is_first:
            return None
        measured = judge.of_test_images(steps)
        if measured is None:
            measured = _measure(trained, test_source, recipe, runtime)
        return _results(measured, test_source, recipe.data.source, directory)


def _sources(data: DataConfig, *, tell: bool) -> tuple[Source, Source]:
    """Training and test images; what cannot be read at all is told here, if it is to be left out."""
    whole, test_source = (open_source(data.source, split, bad=data.bad_images) for split in ("train", "test"))
    for source in (whole, test_source):
        if source.skipped and tell:
            print(f"left out of {source.name}: {len(source.skipped):,}, first {source.skipped[0]}", file=sys.stderr)
    train_source = whole if data.exclude is None else without(whole, data.exclude)
    return _shared(train_source, data.share), test_source


def _shared(source: Source, share: float) -> Source:
    """The share of every class that is trained on; a larger one holds all of a smaller one."""
    if share == 1:
        return source
    return select(f"{share:g} of {source.name}", [(source, keyed_split(source, "test", share))])


def _measure(model: Model, source: Source, recipe: Recipe, runtime: Runtime) -> accuracy.Accuracy:
    return accuracy.measure(model, source, model.preprocessing, runtime, bad_images=recipe.data.bad_images)


class _Judge:
    """The hook that measures the model during training; it remembers the last result, which need not be made twice."""

    def __init__(self, source: Source, kind: str, recipe: Recipe, runtime: Runtime) -> None:
        self._source, self._kind, self._recipe, self._runtime = source, kind, recipe, runtime
        self._last: tuple[int, accuracy.Accuracy] | None = None

    def __call__(self, step: int, model: Model) -> dict[str, float]:
        measured = _measure(model, self._source, self._recipe, self._runtime)
        self._last = step, measured
        return {f"{self._kind}_top1": measured.top(1), f"{self._kind}_loss": measured.cross_entropy}

    def of_test_images(self, step: int) -> accuracy.Accuracy | None:
        """What it found on the test images after `step`, if it looked at them then."""
        return self._last[1] if self._kind == "test" and self._last is not None and self._last[0] == step else None


def _held_out(recipe: Recipe, train_source: Source, test_source: Source, runtime: Runtime) -> tuple[Source, _Judge]:
    """What is trained on, and what is measured meanwhile: test images, or a part that is held out to choose by."""
    share = recipe.scale.validation
    if not share:
        return train_source, _Judge(test_source, "test", recipe, runtime)
    held_out = select(f"{train_source.name} held out", [(train_source, keyed_split(train_source, "test", share))])
    kept = select(train_source.name, [(train_source, keyed_split(train_source, "train", share))])
    return kept, _Judge(held_out, "validation", recipe, runtime)


@contextmanager
def _opened(recipe: Recipe, folder: Path, data: str, runtime: Runtime, resume: bool) -> Iterator[RunDirectory]:
    """The run's folder; one process opens it for all."""
    with ExitStack() as opened:
        with raise_on_all(runtime):
            directory = RunDirectory(folder)
            if runtime.is_first:
                about = {**environment(runtime), "processes": runtime.ranks}
                run = open_run(folder, recipe, data=data, environment=about, resume=resume)
                directory = opened.enter_context(run)
        yield directory


@contextmanager
def _shown(title: str, steps: int, runtime: Runtime) -> Iterator[Display]:
    if not runtime.is_first:
        yield Display()
        return
    with display(title, steps) as shown:
        yield shown


def _results(measured: accuracy.Accuracy, source: Source, data: str, directory: RunDirectory) -> ResultTable:
    table = accuracy_table(measured, source.name, source.classes, known_as(data))
    store(table, directory.results / "accuracy.json")
    return table
