"""`vitlab pretrain RECIPE`: train a model from scratch."""

from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.training import Changes, run, scale_assignments
from vitlab.recipes import library

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
    """Train a model from scratch by RECIPE; the run's folder holds the model, the numbers and the results."""
    assignments = [
        *([f"model.name={model}"] if model else []),
        *options.data_assignments(bad_images, exclude),
        *scale_assignments(batch, log),
        *(changes or []),
    ]
    resolved = Changes(data, steps, seed, tuple(assignments)).applied_to(library.find(recipe))
    show(run(resolved, out, resume=resume, device=device, title="pretrain"), as_json=as_json)
