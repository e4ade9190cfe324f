"""`vitlab finetune MODEL --data SOURCE`: train a model further on labelled images."""

from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.training import Changes, run, scale_assignments
from vitlab.recipes import library

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
    started = library.find(recipe).model_copy(update={"init_from": model})
    resolved = Changes(
        data,
        steps,
        seed,
        (*options.data_assignments(bad_images, exclude), *scale_assignments(batch, log), *(changes or [])),
    ).applied_to(started)
    show(run(resolved, out, resume=resume, device=device, title="finetune"), as_json=as_json)
