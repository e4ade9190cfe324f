"""`vitlab study NAME`: a grid of runs, one after another; learning rates are tried on a part of train before."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.training import RecipeChanges
from vitlab.errors import UserError
from vitlab.experiments.study import changed, conduct, find, narrowed
from vitlab.recipes import studies
from vitlab.results import ResultTable

app = options.new_app()


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
    rates: Annotated[str | None, typer.Option(metavar="R,R", help="Learning rates to try, such as 1e-3,3e-3.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="S,S", help="Seeds of the final runs, such as 0,1,2.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", metavar="ROW", help="Only this row; repeatable.")] = None,
    steps: options.StepsOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the study's folder is.")] = Path("runs/study"),
    changes: options.SetOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Run a grid of recipes and print mean and standard deviation. Run again, it goes on where it was."""
    if name is None:
        show(_listing(), as_json=as_json)
        return
    seeds_given = [int(seed) for seed in _numbers(seeds, "--seeds")]
    chosen = narrowed(find(name), rows or [], _numbers(rates, "--rates"), seeds_given)
    if chosen.verb == "finetune" and model is None:
        raise UserError(f"{chosen.name} fine-tunes: say what to start from with --from MODEL (a run, a file, a folder)")
    given = RecipeChanges(data=data, steps=steps, init_from=model, assignments=tuple(changes or []))
    started = changed(chosen, given.applied_to, given.changed_keys())
    show(conduct(started, out / started.name, device), as_json=as_json)


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


def _listing() -> ResultTable:
    rows: list[list[str | int]] = []
    for known in studies.all_studies():
        runs = sum(len(row.sweep.learning_rates) + len(row.sweep.seeds) for row in known.rows)
        rows.append([known.name, known.about, len(known.rows), runs])
    return ResultTable("Studies", ["name", "what it asks", "rows", "runs"], rows)
