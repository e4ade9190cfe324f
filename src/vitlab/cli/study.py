"""`vitlab study NAME`: a grid of runs, one after another; learning rates are tried on a part of train before."""

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.training import Changes, run
from vitlab.errors import UserError
from vitlab.recipes import library, studies
from vitlab.recipes.schema import Recipe, from_toml
from vitlab.recipes.studies import Row, Study, Sweep
from vitlab.results import ResultTable, percent, write_table
from vitlab.training.judging import SCORE
from vitlab.training.run_directory import RECIPE, read_metrics

app = options.new_app()
ACCURACY = Path("results") / "accuracy.json"
STUDY = Path("results") / "study.json"


@dataclass(frozen=True)
class Trial:
    """A learning rate, and the share of the development images that it gets right."""

    learning_rate: float
    top1: float


@dataclass(frozen=True)
class Outcome:
    """What a row of a study came to: the rates that were tried, the one taken, and test top-1 by seed."""

    row: Row
    trials: tuple[Trial, ...]
    learning_rate: float
    top1: dict[int, float]


@app.command()
def study(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A study's name, or a recipe's name or file; none lists the studies."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Weights to start from, where the study fine-tunes.")
    ] = None,
    data: options.OptionalDataOption = None,
    rates: Annotated[
        str | None, typer.Option("--rates", metavar="R,R", help="Learning rates to try, such as 1e-3,3e-3.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", metavar="S,S", help="Seeds of the runs that count, such as 0,1,2.")
    ] = None,
    rows: Annotated[
        list[str] | None, typer.Option("--row", metavar="ROW", help="Only this row; may be given again.")
    ] = None,
    steps: options.StepsOption = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the study's folder is.")] = Path(
        "runs/study"
    ),
    changes: options.SetOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Run a grid of recipes and print mean and standard deviation. Run again, it goes on where it was."""
    if name is None:
        show(_listing(), as_json=as_json)
        return
    changed = Changes(data, steps, None, tuple(changes or []))
    chosen = _narrowed(_find(name), rows, _numbers(rates, "--rates"), [int(s) for s in _numbers(seeds, "--seeds")])
    started = _changed(chosen, changed, model)
    show(conduct(started, out / started.name, device), as_json=as_json)


def conduct(study: Study, folder: Path, device: str) -> ResultTable:
    """Make all runs of a study that are not there yet, and its table, which is stored after each row.

    Args:
        study: what to run.
        folder: gets ROW/rate-R for trials, ROW/seed-S for runs that count, and results/study.json.
        device: as for the other verbs.
    """
    outcomes: list[Outcome] = []
    for row in study.rows:
        outcomes.append(_conducted(row, folder / _folder_name(row.name), device))
        write_table(table(study, outcomes), folder / STUDY)
    return table(study, outcomes)


def _conducted(row: Row, folder: Path, device: str) -> Outcome:
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
    return float(json.loads((folder / ACCURACY).read_text(encoding="utf-8"))["numbers"]["top1"])


def _run_once(recipe: Recipe, folder: Path, device: str, title: str) -> None:
    """Nothing, where the same run is finished; where another one is in the way, the user's mistake is told."""
    stored = folder / RECIPE
    is_finished = (folder / ACCURACY).exists() and stored.exists()
    if is_finished and from_toml(stored.read_text(encoding="utf-8"), str(stored)) == recipe:
        return
    run(recipe, folder, resume=True, device=device, title=title)


def table(study: Study, outcomes: Sequence[Outcome]) -> ResultTable:
    """What the rows came to so far."""
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
    columns = ["", "learning rate", "top-1 on test images", *([published] if has_published else [])]
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
    return f"on {outcome.row.sweep.dev_share:.0%} of train, held out, by learning rate: {found}"


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


def _find(name: str) -> Study:
    """A study, or a recipe as a study of one row."""
    if name in {known.name for known in studies.all_studies()}:
        return studies.find(name)
    entry = library.entry(name)
    if entry is None and Path(name).suffix != ".toml":
        return studies.find(name)  # says what is near
    recipe = library.find(name)
    row = Row(recipe.name, Sweep(recipe))
    return Study(recipe.name, recipe.about or "a recipe of yours", (row,), verb=entry.verb if entry else "pretrain")


def _narrowed(study: Study, names: list[str] | None, rates: list[float], seeds: list[int]) -> Study:
    """The study with the rows, rates and seeds that the user chose."""
    known = [row.name for row in study.rows]
    for name in names or []:
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


def _changed(study: Study, changes: Changes, model: str | None) -> Study:
    """The study with the command line's changes in every run."""
    if study.verb == "finetune" and model is None:
        raise UserError(f"{study.name} fine-tunes: say what to start from with --from MODEL (a run, a file, a folder)")

    def changed(recipe: Recipe) -> Recipe:
        return changes.applied_to(recipe if model is None else recipe.model_copy(update={"init_from": model}))

    return replace(
        study,
        rows=tuple(replace(row, sweep=replace(row.sweep, recipe=changed(row.sweep.recipe))) for row in study.rows),
    )


def _numbers(text: str | None, option: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"{option} {text}: give numbers with commas between, such as 0,1,2") from None
    if option == "--seeds" and any(value != int(value) or value < 0 for value in values):
        raise UserError(f"{option} {text}: seeds are whole numbers from 0 on")
    if len(set(values)) < len(values):
        raise UserError(f"{option} {text}: a number is there twice")
    return values


def _folder_name(row: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", row)


def _listing() -> ResultTable:
    rows: list[list[str | int]] = [
        [known.name, known.about, len(known.rows), sum(map(_runs, known.rows))] for known in studies.all_studies()
    ]
    return ResultTable("Studies", ["name", "what it asks", "rows", "runs"], rows)


def _runs(row: Row) -> int:
    return len(row.sweep.learning_rates) + len(row.sweep.seeds)
