"""`vitlab study NAME`: a grid of runs, one after another, after trying learning rates on held-out training images."""

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
        typer.Argument(
            metavar="NAME", help="A study's name, or a recipe's name or file; leave it out to list the studies."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Weights to start from, where the study fine-tunes.")
    ] = None,
    data: options.OptionalDataOption = None,
    rates: Annotated[str | None, typer.Option(metavar="R,R", help="Learning rates to try, such as 1e-3,3e-3.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="S,S", help="Seeds of the final runs, such as 0,1,2.")] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", metavar="ROW", help="Only this row; repeatable.")] = None,
    steps: options.StepsOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the study's folder goes.")] = Path("runs/study"),
    changes: options.SetOption = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Run a grid of recipes and print mean and standard deviation. A second call continues where the first stopped."""
    if name is None:
        show(_listing(), as_json=as_json)
        return
    seeds_given = [int(seed) for seed in _numbers(seeds, "--seeds")]
    chosen = narrowed(find(name), rows or [], _numbers(rates, "--rates"), seeds_given)
    if chosen.verb == "finetune" and model is None:
        raise UserError(
            f"{chosen.name} fine-tunes: name the weights to start from with --from MODEL (a run, a file, a folder)"
        )
    given = RecipeChanges(data=data, steps=steps, init_from=model, assignments=tuple(changes or []))
    started = changed(chosen, given.applied_to, given.changed_keys())
    show(conduct(started, out / started.name, device), as_json=as_json)


def _numbers(text: str | None, option: str) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        raise UserError(f"{option} {text}: write numbers separated by commas, such as 0,1,2") from None
    if option == "--seeds" and any(value != int(value) or value < 0 for value in values):
        raise UserError(f"{option} {text}: seeds are integers from 0 on")
    if len(set(values)) < len(values):
        raise UserError(f"{option} {text}: a number occurs twice")
    return values


def _listing() -> ResultTable:
    rows: list[list[str | int]] = []
    for known in studies.all_studies():
        runs = sum(len(row.sweep.learning_rates) + len(row.sweep.seeds) for row in known.rows)
        rows.append([known.name, known.about, len(known.rows), runs])
    return ResultTable("Studies", ["name", "question", "rows", "runs"], rows)
