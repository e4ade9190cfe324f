"""Options that several verbs share."""

from typing import Annotated

import typer

from vitlab.data.sources import Bad
from vitlab.errors import UserError
from vitlab.recipes.schema import current_assignments

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A run's directory, or a weights file or folder.")]
_DATA = typer.Option("--data", metavar="SOURCE", help="A data set's name, an image folder, or a pattern of tar shards.")
DataOption = Annotated[str, _DATA]
OptionalDataOption = Annotated[str | None, _DATA]
StepsOption = Annotated[int | None, typer.Option("--steps", min=1, help="Number of updates, instead of the recipe's.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Random seed, instead of the recipe's.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        callback=lambda changes: current_assignments(changes or []),
        help="Change one key of the recipe; may be repeated.",
    ),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cuda, mps or cpu.")]
BadImagesOption = Annotated[
    Bad,
    typer.Option("--bad-images", help="refuse: stop at an image that cannot be read. skip: leave it out and count it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def whole_numbers(option: str, text: str, example: str) -> list[int]:
    """The numbers above 0 of an option such as "1,5,10", sorted; anything else is an error of the user."""
    words = [word.strip() for word in text.split(",")]
    # isdecimal alone accepts the digits of every script, and int raises for numbers with thousands of digits.
    if not all(word.isascii() and word.isdecimal() and len(word) < 7 and int(word) > 0 for word in words):
        raise UserError(f"{option} {text[:60]}: write whole numbers separated by commas, such as {example}")
    return sorted({int(word) for word in words})


def new_app() -> typer.Typer:
    """A verb's command line: plain help, no options for shell completion."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
