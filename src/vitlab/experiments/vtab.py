"""VTAB-1k: 19 tasks of 1,000 training images (Zhai et al. 2019; paper: Figure 2 and Table 9).

What is to be chosen (a learning rate, or the penalty of least squares) is chosen on 200 of the images after training on
the other 800; then all 1,000 are trained on, once, and the task's complete test set is evaluated, once. What the
choice cost is recorded with every task.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from vitlab import files, weights
from vitlab.data.sources import Source, Split
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation.features import Features, features_of
from vitlab.evaluation.fewshot import PENALTIES
from vitlab.evaluation.least_squares import factorise
from vitlab.experiments.vtab_folder import RESULT, Settings, TaskResult, Trial
from vitlab.models.build import Model, model_digest
from vitlab.recipes import vtab
from vitlab.recipes.configs import Size
from vitlab.recipes.effects import refuse_without_effect
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.recipes.vtab import VtabTask
from vitlab.runner import ACCURACY, Run, Splits, run
from vitlab.runtime import Runtime

FIXED = {
    "init_from": "the weights are MODEL; leave it out",
    "optimizer.learning_rate": "give learning rates with --learning-rates",
    "data.source": "each task has its own images; give their folder with --data",
    "epochs": "VTAB counts updates; give --steps",
}
USED_BY_LINEAR = "model.image_size"


def source_of(task: VtabTask, data: Path | None) -> str:
    """The catalogue's name of a task's images: `vtab/TASK`, or with the folder of that name in `data`."""
    return f"vtab/{task.name}" if data is None else f"vtab/{task.name}={data / task.name}"


def identified(settings: Settings) -> Settings:
    """The same settings with the fingerprint of their weights, once these are known to take VTAB's images.

    Raises:
        UserError: the weights cannot be loaded, or their patches do not divide the images.
    """
    task = vtab.TASKS[0]
    size = _recipe(task, source_of(task, None), settings, settings.rates[0]).model.image_size
    try:
        # At its own size: positions that were resampled for another could differ from one machine to the next.
        model = weights.load_model(settings.model)
    except UserError:
        model = weights.load_model(settings.model, image_size=size)
    _check_size(model, size, settings)
    seen = f"{model.preprocessing} {model_digest(model)}"
    return replace(settings, weights=hashlib.sha256(seen.encode()).hexdigest())


def _check_size(model: Model, size: Size | None, settings: Settings) -> None:
    if size is None:
        return
    try:
        replace(model.config, image_size=size)
    except UserError as error:
        changed = any(assignment.startswith("model.image_size") for assignment in settings.assignments)
        origin = "what --set model.image_size says" if changed else "the size that VTAB's recipes transfer at"
        raise UserError(
            f"{settings.model}: {error}; {size} is {origin}, give one that fits, "
            f"such as the weights' own: --set model.image_size={json.dumps(model.config.image_size)}"
        ) from None


def check_data(task: VtabTask, source: str, settings: Settings, done: TaskResult) -> None:
    """Refuse a finished task's result for other images.

    Args:
        task: which; it is finished.
        source: its images as they are to be now, see `source_of`.
        settings: of the complete run.
        done: its outcome.

    Raises:
        UserError: the images are not there, or not those that it was trained and tested on.
    """
    bad_images = _recipe(task, source, settings, settings.rates[0]).data.bad_images
    noted: dict[Split, str] = {"train": done.train, "test": done.test}
    for split, fingerprint in noted.items():
        if open_source(source, split, bad=bad_images).fingerprint != fingerprint:
            raise UserError(
                f"{source}: its {split} images are not those of the finished task; "
                "give the same --data, or another --out"
            )


def run_task(task: VtabTask, source: str, settings: Settings, out: Path, runtime: Runtime) -> TaskResult:
    """Choose, train on all 1,000 images, test, and write the outcome into the task's folder.

    A task that was interrupted continues from its newest checkpoint.

    Args:
        task: which.
        source: its images, see `source_of`.
        settings: of the complete run.
        out: of the complete run; the task gets the folder of its name.
        runtime: device and precision.

    Raises:
        UserError: images or weights are missing or refused.
    """
    folder = out / task.name
    done = (
        _linear(task, source, settings, runtime) if settings.linear else _tuned(task, source, settings, folder, runtime)
    )
    files.write_json(folder / RESULT, asdict(done))
    return done


def group_means(results: Mapping[str, TaskResult]) -> dict[str, float]:
    """The mean accuracy of each group whose tasks are all finished."""
    means: dict[str, float] = {}
    for group in dict.fromkeys(task.group for task in vtab.TASKS):
        names = [task.name for task in vtab.TASKS if task.group == group]
        if all(name in results for name in names):
            means[group] = float(np.mean([results[name].accuracy for name in names]))
    return means


def mean(results: Mapping[str, TaskResult]) -> float | None:
    """VTAB's score, the plain mean over 19 tasks; None if one is missing."""
    if len(results) != len(vtab.TASKS):
        return None
    return vtab.score({name: result.accuracy for name, result in results.items()})


def _tuned(task: VtabTask, source: str, settings: Settings, folder: Path, runtime: Runtime) -> TaskResult:
    trials = []
    steps = 0
    if len(settings.rates) > 1:
        for rate in settings.rates:
            recipe = _recipe(task, source, settings, rate)
            done, *_ = _trained(recipe, folder / f"tune-{rate:g}", ("dev-train", "dev"), runtime)
            trials.append(Trial(rate, done.results[ACCURACY].numbers["top1"]))
            steps += recipe.steps or 0
    chosen = max(trials, key=lambda trial: trial.validation).value if trials else settings.rates[0]
    recipe = _recipe(task, source, settings, chosen)
    done, train, test = _trained(recipe, folder / "final", ("train", "test"), runtime)
    numbers = done.results[ACCURACY].numbers
    return TaskResult(
        task.name, numbers["correct"], numbers["images"], chosen, tuple(trials), steps,
        recipe.steps or 0, train.fingerprint, test.fingerprint,
    )  # fmt: skip


def _recipe(task: VtabTask, source: str, settings: Settings, rate: float) -> Recipe:
    recipe = load_recipe(f"vtab/{task.name}")
    data = recipe.data.model_copy(update={"source": source})
    recipe = recipe.model_copy(update={"init_from": settings.model, "data": data})
    return with_changes(recipe, [f"optimizer.learning_rate={rate!r}", *settings.assignments])


def check_assignments(settings: Settings) -> None:
    """Refuse changes of a recipe that would have no effect, or would make another experiment of it.

    Raises:
        UserError: such a change.
    """
    keys = [assignment.partition("=")[0].strip() for assignment in settings.assignments]
    for key in keys:
        if key in FIXED:
            raise UserError(f"--set {key}: {FIXED[key]}")
        if settings.linear and key != USED_BY_LINEAR:
            raise UserError(f"{key} has no effect with --linear, which trains nothing; it takes {USED_BY_LINEAR}")
    task = vtab.TASKS[0]
    refuse_without_effect(_recipe(task, source_of(task, None), settings, settings.rates[0]), keys)


def _trained(recipe: Recipe, folder: Path, splits: tuple[Split, Split], runtime: Runtime) -> tuple[Run, Source, Source]:
    """Train on the first split and test on the second; an existing run is continued."""
    train, test = (open_source(recipe.data.source, split, bad=recipe.data.bad_images) for split in splits)
    title = f"{recipe.name} {folder.name}"
    done = run(recipe, folder, data=Splits(train, test), device=str(runtime.device), resume=True, title=title)
    return done, train, test


def _linear(task: VtabTask, source: str, settings: Settings, runtime: Runtime) -> TaskResult:
    """Least squares on frozen features; the penalty is chosen among 30."""
    recipe = _recipe(task, source, settings, settings.rates[0])
    model = weights.load_model(settings.model, image_size=recipe.model.image_size)
    seen: dict[Split, Features] = {}
    opened: dict[Split, Source] = {}
    for split in ("dev-train", "dev", "train", "test"):
        opened[split] = open_source(source, split)
        seen[split] = features_of(model, opened[split], model.preprocessing, runtime)
    found = factorise(*seen["dev-train"], task.classes).sweep(*seen["dev"], PENALTIES)
    chosen = PENALTIES[int(np.argmax(found))]
    predicted_N = factorise(*seen["train"], task.classes).at(chosen).predict(seen["test"][0])
    correct = int((predicted_N == seen["test"][1]).sum())
    trials = tuple(Trial(value, validation) for value, validation in zip(PENALTIES, found, strict=True))
    fingerprints = opened["train"].fingerprint, opened["test"].fingerprint
    return TaskResult(task.name, correct, len(predicted_N), chosen, trials, 0, 0, *fingerprints)


def chosen_tasks(names: Sequence[str]) -> list[VtabTask]:
    """The tasks of these names, in the paper's order; all if no name is given.

    Raises:
        UserError: an unknown name.
    """
    wanted = {vtab.get(name).name for name in names}
    return [task for task in vtab.TASKS if not wanted or task.name in wanted]
