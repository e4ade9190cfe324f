"""A study: a grid of runs, one after another, after trying learning rates on held-out training images."""

import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vitlab.errors import UserError
from vitlab.recipes import library, studies
from vitlab.recipes.effects import value_at
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import Recipe, from_stored_toml
from vitlab.recipes.studies import Study, StudyRow, Sweep
from vitlab.results import ResultTable, percent, write_table
from vitlab.runner import ACCURACY, run
from vitlab.training.run_directory import RECIPE, read_metrics
from vitlab.training.validation import SCORE

ACCURACY_FILE = Path("results") / f"{ACCURACY}.json"
STUDY = Path("results") / "study.json"


@dataclass(frozen=True)
class Trial:
    """A learning rate, and the accuracy on the development images that it reaches."""

    learning_rate: float
    top1: float


@dataclass(frozen=True)
class Outcome:
    """The result of a row of a study: the rates that were tried, the one chosen, and test top-1 by seed."""

    row: StudyRow
    trials: tuple[Trial, ...]
    learning_rate: float
    top1: dict[int, float]


def conduct(study: Study, folder: Path, device: str) -> ResultTable:
    """Make all runs of a study that do not exist yet, and its table, which is stored after each row.

    Args:
        study: what to run.
        folder: gets ROW/rate-R for trials, ROW/seed-S for runs that count, and results/study.json.
        device: as for the other verbs.
    """
    outcomes: list[Outcome] = []
    for row in study.rows:
        outcomes.append(_conducted(row, folder / re.sub(r"[^A-Za-z0-9.+-]+", "-", row.name), device))
        write_table(table(study, outcomes), folder / STUDY)
    return table(study, outcomes)


def _conducted(row: StudyRow, folder: Path, device: str) -> Outcome:
    sweep = row.sweep
    trials = tuple(
        Trial(rate, _on_development(sweep.trial(rate), folder / f"rate-{rate:g}", device, row.name))
        for rate in sweep.learning_rates
    )
    rate = max(trials, key=lambda trial: trial.top1).learning_rate if trials else None
    top1 = {seed: _on_test(sweep.final(rate, seed), folder / f"seed-{seed}", device, row.name) for seed in sweep.seeds}
    return Outcome(row, trials, sweep.recipe.optimizer.learning_rate if rate is None else rate, top1)


def _on_development(recipe: Recipe, folder: Path, device: str, title: str) -> float:
    """The best score on the held-out images, which is that of the weights that the run keeps."""
    _run_once(recipe, folder, device, f"{title}: rate {recipe.optimizer.learning_rate:g}")
    return max(float(line[SCORE]) for line in read_metrics(folder) if SCORE in line)


def _on_test(recipe: Recipe, folder: Path, device: str, title: str) -> float:
    _run_once(recipe, folder, device, f"{title}: seed {recipe.seed}")
    return float(json.loads((folder / ACCURACY_FILE).read_text(encoding="utf-8"))["numbers"]["top1"])


def _run_once(recipe: Recipe, folder: Path, device: str, title: str) -> None:
    """Run a recipe, unless the same run is finished; another run in the folder is refused."""
    stored = folder / RECIPE
    is_finished = (folder / ACCURACY_FILE).exists() and stored.exists()
    if is_finished and from_stored_toml(stored.read_text(encoding="utf-8"), str(stored)) == recipe:
        return
    run(recipe, folder, resume=True, device=device, title=title)


def table(study: Study, outcomes: Sequence[Outcome]) -> ResultTable:
    """The results of the rows so far."""
    rows: list[list[str]] = [
        [
            outcome.row.name,
            f"{outcome.learning_rate:g}",
            _mean_and_deviation(outcome.top1.values()),
            outcome.row.published,
        ]
        for outcome in outcomes
    ]
    if study.averaged:
        rows.append(["mean", "", _mean_and_deviation(_means(outcomes).values()), ""])
    published = f"published: {study.published_is}" if study.published_is else "published"
    has_published = any(row[-1] for row in rows)
    columns = ["", "learning rate", "test top-1 accuracy", *([published] if has_published else [])]
    tried = [f"{outcome.row.name}: {_tried(outcome)}" for outcome in outcomes if outcome.trials]
    count = len(outcomes[0].top1) if outcomes else 0
    return ResultTable(
        title=f"{study.name}: {study.about}",
        summary=f"Mean and standard deviation over {count} seeds." if count > 1 else "One seed.",
        columns=columns,
        rows=[row[: len(columns)] for row in rows],
        notes=tried,
        numbers={outcome.row.name: _as_numbers(outcome) for outcome in outcomes},
    )


def _as_numbers(outcome: Outcome) -> dict[str, object]:
    return {
        "learning_rate": outcome.learning_rate,
        "development_top1": {f"{trial.learning_rate:g}": trial.top1 for trial in outcome.trials},
        "test_top1": {str(seed): top1 for seed, top1 in outcome.top1.items()},
        "published": outcome.row.published,
    }


def _tried(outcome: Outcome) -> str:
    found = ", ".join(f"{trial.learning_rate:g}: {percent(trial.top1)}" for trial in outcome.trials)
    share = f"{outcome.row.sweep.dev_share:.0%}"
    return f"top-1 accuracy by learning rate, on {share} of the training images, held out: {found}"


def _means(outcomes: Sequence[Outcome]) -> dict[int, float]:
    """By seed, the mean over the rows."""
    seeds = outcomes[0].top1 if outcomes else {}
    return {seed: statistics.mean(outcome.top1[seed] for outcome in outcomes) for seed in seeds}


def _mean_and_deviation(shares: Iterable[float]) -> str:
    """Such as 81.30 ± 0.12 %; the deviation is that of a sample, with n - 1."""
    values = list(shares)
    if len(values) < 2:
        return percent(values[0])
    return f"{100 * statistics.mean(values):.2f} ± {percent(statistics.stdev(values))}"


def find(name: str) -> Study:
    """A study, or a recipe as a study of one row.

    Raises:
        UserError: an unknown name, or a file that is not a recipe.
    """
    if name in studies.STUDIES:
        return studies.find(name)
    entry = library.entry(name)
    if entry is None and Path(name).suffix != ".toml":
        return studies.find(name)  # raises, with the nearest names
    recipe = load_recipe(name)
    row = StudyRow(recipe.name, Sweep(recipe))
    return Study(recipe.name, recipe.about or "a recipe of yours", (row,), verb=entry.verb if entry else "pretrain")


def narrowed(study: Study, names: Sequence[str], rates: Sequence[float], seeds: Sequence[int]) -> Study:
    """The study with the given rows, learning rates and seeds; empty ones leave all."""
    known = [row.name for row in study.rows]
    for name in names:
        if name not in known:
            raise UserError(f"{study.name} has no row '{name}'; its rows are {', '.join(known)}")
    rows = [row for row in study.rows if not names or row.name in names]
    swept = [
        replace(
            row.sweep, learning_rates=tuple(rates) or row.sweep.learning_rates, seeds=tuple(seeds) or row.sweep.seeds
        )
        for row in rows
    ]
    return replace(study, rows=tuple(replace(row, sweep=sweep) for row, sweep in zip(rows, swept, strict=True)))


def changed(study: Study, change: Callable[[Recipe], Recipe], keys: Iterable[str]) -> Study:
    """The study with a change in the recipe of every run.

    Args:
        study: what to change.
        change: of one recipe.
        keys: the keys of a recipe that it sets.

    Raises:
        UserError: the study itself chooses one of the keys for each run, or two of its rows become the same.
    """
    rows = tuple(replace(row, sweep=replace(row.sweep, recipe=change(row.sweep.recipe))) for row in study.rows)
    for row in rows:
        for recipe in (*map(row.sweep.trial, row.sweep.learning_rates), *_finals(row.sweep)):
            for key in keys:
                if value_at(recipe, key) != value_at(row.sweep.recipe, key):
                    raise UserError(f"{key}: {study.name} chooses it for each run; use --rates or --seeds, or omit it")
    for number, row in enumerate(rows):
        for other, before in zip(rows[:number], study.rows, strict=False):
            if _same(row, other) and not _same(study.rows[number], before):
                raise UserError(f"{', '.join(keys)}: {study.name} varies it; {other.name} and {row.name} would match")
    return replace(study, rows=rows)


def _finals(sweep: Sweep) -> list[Recipe]:
    rate = sweep.learning_rates[0] if sweep.learning_rates else None
    return [sweep.final(rate, seed) for seed in sweep.seeds]


def _same(row: StudyRow, other: StudyRow) -> bool:
    plain = {"name": "", "about": ""}
    return row.sweep.recipe.model_copy(update=plain) == other.sweep.recipe.model_copy(update=plain)
