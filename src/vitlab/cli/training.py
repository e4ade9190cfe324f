"""The options that `pretrain` and `finetune` share, and what both do with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from vitlab.cli import options
from vitlab.cli.changes import RecipeChanges
from vitlab.cli.output import show
from vitlab.data.sources import Bad
from vitlab.recipes.schema import Recipe
from vitlab.runner import ACCURACY, run


@dataclass(frozen=True, kw_only=True)
class TrainingVerb:
    """A verb that trains by a recipe; Typer makes it from the command line, and `main` calls it.

    A subclass is a verb: its fields are its own arguments and options, and its docstring is its help.
    """

    verb: ClassVar[str]

    data: options.OptionalDataOption = None
    steps: options.StepsOption = None
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The run's directory; default runs/RECIPE.")] = None
    seed: options.SeedOption = None
    bad_images: Annotated[
        Bad | None, typer.Option(help="refuse (the default): stop at an image that cannot be read. skip: leave it out.")
    ] = None
    exclude: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Leave out the training images that this list of `vitlab dedup` names."),
    ] = None
    batch: Annotated[
        str | None,
        typer.Option(help="Images per step; auto splits the recipe's batch into microbatches that fit into memory."),
    ] = None
    log: Annotated[str | None, typer.Option(help="Also log the metrics to: none, tensorboard or wandb.")] = None
    changes: options.SetOption = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint of the run.")] = False
    device: options.DeviceOption = "auto"
    as_json: options.JsonOption = False

    def __call__(self) -> None:
        """Train, and print the accuracy on the test images."""
        recipe = self.changed_recipe()
        out = self.out or Path("runs") / recipe.name
        done = run(recipe, out, resume=self.resume, device=self.device, title=self.verb)
        if ACCURACY in done.results:  # of several processes the first one has it
            show(done.results[ACCURACY], as_json=self.as_json)

    def changed_recipe(self) -> Recipe:
        """The recipe with what the command line changes of it."""
        raise NotImplementedError

    def changes_of(self, *, model: str | None = None, init_from: str | None = None) -> RecipeChanges:
        """What the shared options change of a recipe, and the verb's own model or weights."""
        return RecipeChanges(
            data=self.data, model=model, init_from=init_from, steps=self.steps, seed=self.seed,
            bad_images=self.bad_images, exclude=self.exclude, batch=self.batch, log=self.log,
            assignments=tuple(self.changes or ()),
        )  # fmt: skip
