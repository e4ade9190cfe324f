"""`vitlab pretrain RECIPE`: train a model from scratch."""

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
class Pretrain(TrainingVerb):
    """Train a model from scratch by RECIPE; the run's directory holds the model, the metrics and the results."""

    verb = "pretrain"
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe's name, or a TOML file.")]
    model: Annotated[str | None, typer.Option(help="A model's name, instead of the recipe's.")] = None

    def changed_recipe(self) -> Recipe:
        """The recipe with what the command line changes of it."""
        return self.changes_of(model=self.model).applied_to(load_recipe(self.recipe))
