"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.data.sources import Bad
from vitlab.recipes.schema import current_assignments

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A run's directory, or a weights file or folder.")]
DataOption = Annotated[
    str,
    typer.Option("--data", metavar="SOURCE", help="A data set's name, an image folder, or a pattern of tar shards."),
]
OptionalDataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="SOURCE", help="A data set's name, an image folder, or a pattern of tar shards."),
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Number of updates, instead of the recipe's.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run's directory; runs/RECIPE if not given.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help="Seed of all random numbers, instead of the recipe's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        callback=lambda changes: current_assignments(changes or []),
        help="Change one key of the recipe; may be repeated.",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint of the run.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]
BadImagesOption = Annotated[
    Bad,
    typer.Option("--bad-images", help="refuse: stop at an image that cannot be read. skip: leave it out and count it."),
]
OptionalBadImagesOption = Annotated[
    Bad | None,
    typer.Option(
        "--bad-images", help="refuse (the default): stop at an image that cannot be read. skip: leave it out."
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option(
        "--batch", help="Images per step; auto splits the recipe's batch into microbatches that fit into memory."
    ),
]
LogOption = Annotated[str | None, typer.Option("--log", help="Also log the metrics to: none, tensorboard or wandb.")]
ExcludeOption = Annotated[
    Path | None,
    typer.Option(
        "--exclude", metavar="FILE", help="Leave out the training images that this list of `vitlab dedup` names."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def new_app() -> typer.Typer:
    """A verb's command line: plain help, no options for shell completion."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
