"""Options that several verbs share, said once."""

from pathlib import Path
from typing import Annotated

import typer

from vitlab.data.sources import Bad
from vitlab.recipes.schema import current_assignments

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A run's folder, a weights file or folder.")]
DataOption = Annotated[
    str,
    typer.Option("--data", metavar="SOURCE", help="A data set's name, an image folder, or a pattern of tar shards."),
]
OptionalDataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="SOURCE", help="A data set's name, an image folder, or a pattern of tar shards."),
]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Updates to make, instead of the recipe's.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run's folder; runs/RECIPE if not given.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of every random draw.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        callback=lambda changes: current_assignments(changes or []),
        help="Change one key of the recipe; may be given again.",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint of the run's folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]
BadImagesOption = Annotated[
    Bad,
    typer.Option("--bad-images", help="refuse: stop at an image that cannot be read. skip: leave it out and count it."),
]
OptionalBadImagesOption = Annotated[
    Bad | None,
    typer.Option(
        "--bad-images", help="refuse (as recipes do): stop at an image that cannot be read. skip: leave it out."
    ),
]
BatchOption = Annotated[
    str | None,
    typer.Option("--batch", help="Images a step; auto keeps the recipe's and cuts it into parts that fit into memory."),
]
LogOption = Annotated[str | None, typer.Option("--log", help="Numbers go there as well: none, tensorboard or wandb.")]
ExcludeOption = Annotated[
    Path | None,
    typer.Option("--exclude", metavar="FILE", help="Leave out the images that `vitlab dedup` listed in it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def new_app() -> typer.Typer:
    """A verb's page: plain help, no shell-completion options."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def data_assignments(bad_images: Bad | None, exclude: Path | None) -> list[str]:
    """What --bad-images and --exclude change of a recipe."""
    bad = [] if bad_images is None else [f"data.bad_images={bad_images}"]
    return bad if exclude is None else [*bad, f"data.exclude={exclude}"]
