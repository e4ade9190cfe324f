"""What `pretrain`, `finetune` and `demo` share: from a recipe to a finished run with its results."""

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from vitlab import weights
from vitlab.cli.output import ResultTable, percent, store
from vitlab.data.catalog import open_source
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.evaluation import accuracy
from vitlab.models import build
from vitlab.models.build import Model
from vitlab.recipes import zoo
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import Runtime, choose, environment, seeded
from vitlab.training.interruption import Interrupted
from vitlab.training.loop import TrainingFailed, train
from vitlab.training.progress import display
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


def run(recipe: Recipe, out: Path | None, *, resume: bool, device: str, title: str) -> ResultTable:
    """Train by the recipe, evaluate on the test images, and leave a run's folder behind.

    Everything that can be wrong with the recipe, the data or the weights is found before the folder is made.
    """
    runtime = choose(device)
    train_source, test_source = (
        open_source(recipe.data.source, "train"),
        open_source(recipe.data.source, "test"),
    )
    model = _model(recipe, train_source)
    preprocessing = model.preprocessing
    folder = out if out is not None else Path("runs") / recipe.name
    about = environment(runtime)

    def evaluate(step: int, judged: Model) -> dict[str, float]:
        measured = accuracy.measure(judged, test_source, preprocessing, runtime)
        return {"test_top1": measured.top(1), "test_loss": measured.cross_entropy}

    steps = recipe.total_steps(len(train_source))
    with open_run(folder, recipe, data=train_source.fingerprint, environment=about, resume=resume) as directory:
        with display(title, steps) as shown:
            try:
                train(
                    recipe, model, preprocessing, train_source, directory,
                    runtime=runtime, display=shown, hooks=[evaluate],
                )  # fmt: skip
            except Interrupted as stop:
                print(f"vitlab: {folder}: {stop}", file=sys.stderr)
                raise typer.Exit(stop.exit_code) from None
            except TrainingFailed as failure:
                print(f"vitlab: {folder}: {failure}", file=sys.stderr)
                raise typer.Exit(3) from None
        return _results(model, test_source, preprocessing, runtime, directory)


def _model(recipe: Recipe, source: Source) -> Model:
    image_size = recipe.model.image_size
    if recipe.init_from is not None:
        if recipe.model.options:
            raise UserError("model.options cannot change the shape of weights that are loaded; leave them out")
        model = weights.load_model(recipe.init_from, image_size=image_size)
        build.replace_head(model, len(source.classes))
        given = model.preprocessing
    else:
        with seeded(recipe.seed, "initialisation"):
            options: dict[str, object] = {**recipe.model.options, "num_classes": len(source.classes)}
            if image_size is not None:
                options["image_size"] = image_size
            model = build.build(zoo.configure(recipe.model.name, options))
        given = model.preprocessing
    part = recipe.preprocessing
    model.preprocessing = Preprocessing(
        size=given.size,
        resize=part.resize,
        crop=part.crop,
        interpolation=part.interpolation,
        mean=part.mean or given.mean,
        std=part.std or given.std,
    )
    model.classes = source.classes
    return model


def _results(
    model: Model, source: Source, preprocessing: Preprocessing, runtime: Runtime, directory: RunDirectory
) -> ResultTable:
    table = accuracy_table(accuracy.measure(model, source, preprocessing, runtime), source.name, source.classes)
    store(table, directory.results / "accuracy.json")
    return table


def accuracy_table(measured: accuracy.Accuracy, data: str, classes: tuple[str, ...]) -> ResultTable:
    """Accuracy on `data` as a table: over all, and by class where there are few."""
    rows: list[list[str | int]] = [["all", measured.images, percent(measured.top(1))]]
    for name, share, count in zip(classes, measured.per_class(), measured.confusion().sum(axis=1), strict=True):
        if share is not None and len(classes) <= 20:
            rows.append([name, int(count), percent(share)])
    return ResultTable(
        title=f"Accuracy on {data}",
        summary=f"{percent(measured.top(1))} of {measured.images:,} test images are named rightly.",
        columns=["class", "images", "top-1"],
        rows=rows,
        headline=[{"label": f"top-1 on {data}", "value": f"{100 * measured.top(1):.2f}", "unit": "%"}],
        numbers={
            "images": measured.images,
            "top1": measured.top(1),
            **({"top5": measured.top(5)} if measured.probabilities_NK.shape[1] > 5 else {}),
            "cross_entropy": measured.cross_entropy,
            "classes": list(classes),
            "confusion": measured.confusion().tolist(),
        },
    )
