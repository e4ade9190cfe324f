"""`vitlab pretrain RECIPE`: train a model from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.changes import RecipeChanges
from vitlab.cli.output import show
from vitlab.recipes.library import load_recipe
from vitlab.runner import ACCURACY, run

app = options.new_app()


@app.command()
def pretrain(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe's name, or a TOML file.")],
    data: options.OptionalDataOption = None,
    model: Annotated[str | None, typer.Option("--model", help="A model's name, instead of the recipe's.")] = None,
    steps: options.StepsOption = None,
    out: options.OutOption = None,
    seed: options.SeedOption = None,
    bad_images: options.OptionalBadImagesOption = None,
    exclude: options.ExcludeOption = None,
    batch: options.BatchOption = None,
    log: options.LogOption = None,
    changes: options.SetOption = None,
    resume: options.ResumeOption = False,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Train a model from scratch by RECIPE; the run's folder holds the model, the metrics and the results."""
    given = RecipeChanges(data, model, None, steps, seed, bad_images, exclude, batch, log, tuple(changes or []))
    resolved = given.applied_to(load_recipe(recipe))
    done = run(resolved, out or Path("runs") / resolved.name, resume=resume, device=device, title="pretrain")
    if ACCURACY in done.results:  # of several processes the first one has it
        show(done.results[ACCURACY], as_json=as_json)
