"""`vitlab finetune MODEL --data SOURCE`: train a model further on labelled images."""

from dataclasses import dataclass
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.training import TrainingVerb
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import Recipe

app = options.new_app()


@app.command()
@dataclass(frozen=True, kw_only=True)
class Finetune(TrainingVerb):
    """Train MODEL further on SOURCE: a new head from zero, position embeddings resampled to the recipe's resolution."""

    verb = "finetune"
    model: options.ModelArgument
    recipe: Annotated[str, typer.Option(help="A built-in recipe's name, or a TOML file.")] = "finetune"

    def changed_recipe(self) -> Recipe:
        """The recipe with what the command line changes of it."""
        return self.changes_of(init_from=self.model).applied_to(load_recipe(self.recipe))
