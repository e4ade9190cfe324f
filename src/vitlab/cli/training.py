"""The options that change a recipe, and what `pretrain` and `finetune`, which share most of them, do with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.data.sources import Bad
from vitlab.errors import UserError
from vitlab.recipes.effects import refuse_without_effect
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runner import ACCURACY, run


@dataclass(frozen=True)
class RecipeChanges:
    """The options that change a recipe; None changes nothing.

    Attributes:
        init_from: MODEL, where a verb has one; it may not be set otherwise then.
        assignments: of --set, as `key.path=value`.
        batch: images per step; "auto" keeps the batch size and divides it into microbatches that fit into memory.
    """

    data: str | None = None
    model: str | None = None
    init_from: str | None = None
    steps: int | None = None
    seed: int | None = None
    bad_images: Bad | None = None
    exclude: Path | None = None
    batch: str | None = None
    log: str | None = None
    assignments: tuple[str, ...] = ()

    def applied_to(self, recipe: Recipe) -> Recipe:
        """The recipe with the changes.

        Raises:
            UserError: an unknown key, a value that does not fit, or a key that an option and --set both give.
        """
        assigned = {text.partition("=")[0].strip() for text in self.assignments}
        for key in self._keys_of_options():
            if key in assigned:
                raise UserError(f"{key} is set twice: give it once, as an option or with --set")
        # Names and paths are not read as TOML: a folder may be called 5.
        if self.data is not None:
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": self.data})})
        if self.model is not None:
            recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"name": self.model})})
        if self.init_from is not None:
            recipe = recipe.model_copy(update={"init_from": self.init_from})
        changed = with_changes(recipe, [*self._from_options(), *self.assignments])
        refuse_without_effect(changed, self.changed_keys())
        return changed

    def changed_keys(self) -> list[str]:
        """The keys of a recipe that are set."""
        return [*self._keys_of_options(), *(text.partition("=")[0].strip() for text in self.assignments)]

    def _keys_of_options(self) -> list[str]:
        texts = {"data.source": self.data, "model.name": self.model, "init_from": self.init_from}
        assigned = [text.partition("=")[0] for text in self._from_options()]
        return [*(key for key, text in texts.items() if text is not None), *assigned]

    def _from_options(self) -> list[str]:
        batch = "scale.accumulation=auto" if self.batch == "auto" else f"batch_size={self.batch}"
        found = {
            f"steps={self.steps}": self.steps, f"seed={self.seed}": self.seed, batch: self.batch,
            f"data.bad_images={self.bad_images}": self.bad_images, f"data.exclude={self.exclude}": self.exclude,
            f"log={self.log}": self.log,
        }  # fmt: skip
        return [assignment for assignment, given in found.items() if given is not None]


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
        Path | None, typer.Option(metavar="FILE", help="Leave out the images that this list of `vitlab dedup` names.")
    ] = None
    batch: Annotated[
        str | None, typer.Option(help="Images per step; auto splits the batch into microbatches that fit into memory.")
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
