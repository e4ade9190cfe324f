"""The one function that runs a recipe: it opens and selects the data, makes the model, trains, tests and stores.

Everything that trains calls it: `vitlab pretrain` and `finetune`, the demo, studies, VTAB, and `ViTClassifier`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.data.sources import Source, keyed_split, select
from vitlab.datasets.catalog import known_as, open_source
from vitlab.dedup.clean_list import without
from vitlab.errors import Interrupted, RankLost, TrainingFailed, UserError
from vitlab.evaluation import accuracy
from vitlab.evaluation.accuracy import accuracy_table
from vitlab.models.build import Model, model_digest
from vitlab.progress import Progress, show_progress
from vitlab.recipes import zoo
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import Recipe
from vitlab.results import ResultTable, write_table
from vitlab.runtime import Runtime, choose, environment, process_group, raise_on_all
from vitlab.training.initial_model import initial_model
from vitlab.training.run_directory import RunDirectory, open_run, read_metrics
from vitlab.training.trainer import Trainer

ACCURACY = "accuracy"


@dataclass(frozen=True, eq=False)
class Splits:
    """Images to train on and to test on, where a program has them at hand.

    Attributes:
        train: may be divided further by the recipe (`data.share`, `data.exclude`, `validation.share`).
        test: None if nothing is to be tested.
    """

    train: Source
    test: Source | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        model: with the weights that are kept, in evaluation mode.
        recipe: as it was run.
        metrics: the lines of metrics.jsonl: {"step", "loss", "learning_rate", ...}.
        results: tables of results by name; "accuracy" is that of the test images, if there are any.
        path: the run's directory.
    """

    model: Model
    recipe: Recipe
    metrics: list[dict[str, Any]]
    results: dict[str, ResultTable]
    path: Path


def run(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    data: str | Path | Splits | None = None,
    model: str | Path | Model | None = None,
    device: str = "auto",
    resume: bool = False,
    title: str | None = "",
) -> Run:
    """Run a recipe: train, test on the test images, and store everything in a directory.

    What is wrong with the recipe, the data or the weights is found before the directory is made. Processes that
    torchrun started are one run; all of them call this alike.

    Args:
        recipe: or the name of a built-in one, or a TOML file.
        out: the run's directory.
        data: takes the place of the recipe's `data.source`.
        model: a model's name takes the place of `model.name`; other text is where trained weights are, and takes the
            place of `init_from`; a model itself is trained further with its head, and changed in place.
        device: "auto", "cuda", "mps" or "cpu".
        resume: continue from the newest checkpoint in `out`, if there is one.
        title: of the progress display; the recipe's name if empty. None shows nothing.

    Raises:
        UserError: a mistake in the arguments, the data or the weights, in one line.
        TrainingFailed: the loss is not finite, or memory ran out; Interrupted: SIGINT or SIGTERM came; RankLost:
            another process ended. Checkpoints are intact after each of them.
    """
    recipe, path = resolved(recipe, data, model), Path(out)
    with _named(path), process_group(choose(device)) as runtime:
        job = _prepared(recipe, data, model, runtime)
        with _opened(job, path, resume) as directory, _shown(title, job) as shown:
            trainer = Trainer(recipe, job.model, job.train, directory, runtime=runtime, progress=shown, hooks=job.hooks)
            trained = trainer.fit()
            results = job.test_results(trained, directory)
    return Run(trained.eval(), recipe, read_metrics(path), results, path)


def resolved(recipe: Recipe | str | Path, data: object = None, model: object = None) -> Recipe:
    """The recipe that `run` runs when it is called with these arguments."""
    found = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if isinstance(data, str | Path):
        found = found.model_copy(update={"data": found.data.model_copy(update={"source": str(data)})})
    is_name = isinstance(model, str) and zoo.is_known(model)
    if is_name and Path(str(model)).exists():
        raise UserError(f"{model} is the name of a model and a path as well: write ./{model} for the path")
    if found.init_from is not None and (is_name or isinstance(model, Model)):
        raise UserError(f"init_from={found.init_from}: a model was given as well; leave out one of the two")
    if is_name:
        found = found.model_copy(update={"model": found.model.model_copy(update={"name": model})})
    elif isinstance(model, str | Path):
        found = found.model_copy(update={"init_from": str(model)})
    if not isinstance(data, Splits) and not found.data.source:
        raise UserError("no images given: add --data SOURCE (data= in Python), a name, an image folder or tar shards")
    return found


class _Validation:
    """The hook that measures the model during training; it remembers the last result."""

    def __init__(self, source: Source, kind: str, recipe: Recipe, runtime: Runtime) -> None:
        self._source, self._kind, self._recipe, self._runtime = source, kind, recipe, runtime
        self._last: tuple[int, accuracy.Accuracy] | None = None

    def __call__(self, step: int, model: Model) -> dict[str, float]:
        measured = _measure(model, self._source, self._recipe, self._runtime)
        self._last = step, measured
        return {f"{self._kind}_top1": measured.top(1), f"{self._kind}_loss": measured.cross_entropy}

    def of_test_images(self, step: int) -> accuracy.Accuracy | None:
        """The accuracy on the test images after `step`, if it was measured then."""
        return self._last[1] if self._kind == "test" and self._last is not None and self._last[0] == step else None


@dataclass(frozen=True, eq=False)
class _Job:
    """What a run consists of before its first step."""

    recipe: Recipe
    runtime: Runtime
    model: Model
    train: Source
    test: Source | None
    validation: _Validation | None
    digest: str | None

    @property
    def hooks(self) -> tuple[_Validation, ...]:
        return () if self.validation is None else (self.validation,)

    def test_results(self, trained: Model, directory: RunDirectory) -> dict[str, ResultTable]:
        """Accuracy on the test images, measured and stored by the first process."""
        if not self.runtime.is_first or self.test is None:
            return {}
        steps = self.recipe.total_steps(len(self.train))
        measured = None if self.validation is None else self.validation.of_test_images(steps)
        if measured is None:
            measured = _measure(trained, self.test, self.recipe, self.runtime)
        dataset = known_as(self.recipe.data.source) if self.recipe.data.source else self.test.name
        table = accuracy_table(measured, self.test.name, self.test.classes, dataset)
        write_table(table, directory.results / f"{ACCURACY}.json")
        return {ACCURACY: table}


def _prepared(recipe: Recipe, data: object, model: object, runtime: Runtime) -> _Job:
    with raise_on_all(runtime):
        splits = data if isinstance(data, Splits) else _open(recipe)
        train = _selected(splits.train, recipe)
        if runtime.is_first:
            _say_skipped(splits)
        if isinstance(model, Model):
            started, digest = initial_model(recipe, train.classes, model), model_digest(model)
        else:
            started, digest = initial_model(recipe, train.classes), None
        train, validation = _divided(train, splits.test, recipe, runtime)
    return _Job(recipe, runtime, started, train, splits.test, validation, digest)


def _open(recipe: Recipe) -> Splits:
    train, test = (open_source(recipe.data.source, split, bad=recipe.data.bad_images) for split in ("train", "test"))
    return Splits(train, test)


def _say_skipped(splits: Splits) -> None:
    for source in (splits.train, splits.test):
        if source is not None and source.skipped:
            text = f"left out of {source.name}: {len(source.skipped):,}, first {source.skipped[0]}"
            print(text, file=sys.stderr)


def _selected(source: Source, recipe: Recipe) -> Source:
    """The images that the recipe trains on: without excluded ones, and the share of every class that is wanted."""
    kept = source if recipe.data.exclude is None else without(source, recipe.data.exclude)
    if recipe.data.share == 1:
        return kept
    return select(f"{recipe.data.share:g} of {kept.name}", [(kept, keyed_split(kept, "test", recipe.data.share))])


def _divided(train: Source, test: Source | None, recipe: Recipe, runtime: Runtime) -> tuple[Source, _Validation | None]:
    """What is trained on, and what is measured meanwhile: held-out training images, else the test images."""
    share = recipe.validation.share
    if share:
        held_out = select(f"{train.name} held out", [(train, keyed_split(train, "test", share))])
        kept = select(train.name, [(train, keyed_split(train, "train", share))])
        return kept, _Validation(held_out, "validation", recipe, runtime)
    if test is not None:
        return train, _Validation(test, "test", recipe, runtime)
    if recipe.evaluate_every:
        raise UserError(f"evaluate_every={recipe.evaluate_every}: there are no test images; set validation.share")
    return train, None


def _measure(model: Model, source: Source, recipe: Recipe, runtime: Runtime) -> accuracy.Accuracy:
    return accuracy.measure(model, source, model.preprocessing, runtime, bad_images=recipe.data.bad_images)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What ends a run early says which run it was."""
    try:
        yield
    except (Interrupted, TrainingFailed, RankLost) as end:
        end.args = (f"{path}: {end}",)
        raise


@contextmanager
def _opened(job: _Job, path: Path, resume: bool) -> Iterator[RunDirectory]:
    """The run's directory; one process opens it for all."""
    # A process that torchrun has restarted continues what its predecessor left.
    resume = resume or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    with ExitStack() as opened:
        with raise_on_all(job.runtime):
            directory = RunDirectory(path)
            if job.runtime.is_first:
                about = {**environment(job.runtime), "processes": job.runtime.ranks}
                directory = opened.enter_context(
                    open_run(
                        path, job.recipe, data=job.train.fingerprint, model=job.digest,
                        environment=about, resume=resume,
                    )
                )  # fmt: skip
        yield directory


@contextmanager
def _shown(title: str | None, job: _Job) -> Iterator[Progress]:
    if title is None or not job.runtime.is_first:
        yield Progress()
        return
    with show_progress(title or job.recipe.name, job.recipe.total_steps(len(job.train))) as shown:
        yield shown
