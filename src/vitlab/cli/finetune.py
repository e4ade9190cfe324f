"""`vitlab finetune MODEL --data SOURCE`: train a model further on labelled images."""

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
def finetune(
    model: options.ModelArgument,
    data: options.OptionalDataOption = None,
    recipe: Annotated[str, typer.Option("--recipe", help="A built-in recipe's name, or a TOML file.")] = "finetune",
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
    """Train MODEL further on SOURCE: a new head from zero, position embeddings resampled to the recipe's resolution."""
    given = RecipeChanges(data, None, model, steps, seed, bad_images, exclude, batch, log, tuple(changes or []))
    resolved = given.applied_to(load_recipe(recipe))
    done = run(resolved, out or Path("runs") / resolved.name, resume=resume, device=device, title="finetune")
    if ACCURACY in done.results:  # of several processes the first one has it
        show(done.results[ACCURACY], as_json=as_json)
