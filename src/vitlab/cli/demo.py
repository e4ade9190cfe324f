"""`vitlab demo`: the paper's journey in small, on the bundled images."""

import time
from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.training import RecipeChanges
from vitlab.errors import UserError
from vitlab.experiments.demo import REPLACED
from vitlab.experiments.demo import demo as run_demo
from vitlab.recipes.schema import current_assignments

app = options.new_app()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for everything.")] = Path("runs/demo"),
    seed: options.SeedOption = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one key of both recipes.")
    ] = None,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Pretrain, few-shot, fine-tune, inspect, report: a few minutes on two cores. Run again, it continues."""
    begun = time.monotonic()
    given = RecipeChanges(seed=seed, assignments=tuple(current_assignments(changes or [])))
    for key in given.changed_keys():
        if key in REPLACED:
            raise UserError(f"--set {key}: {REPLACED[key]}; leave it out")
    table = run_demo(out, given.applied_to, device, lambda text: typer.echo(text, err=True))
    show(table, as_json=as_json)
    seconds = time.monotonic() - begun
    typer.echo(f"\nreport: {out / 'report.html'}   ({seconds:.0f} s in total)", err=as_json)
