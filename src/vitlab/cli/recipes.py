"""`vitlab recipes`: the named recipes; `vitlab recipes show NAME`: one of them as TOML to start from."""

import inspect
from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import ResultTable, show
from vitlab.recipes import library
from vitlab.recipes.schema import to_toml

app = options.new_app()


@app.callback(invoke_without_command=True)
def list_recipes(context: typer.Context, as_json: options.JsonOption = False) -> None:
    """The named recipes."""
    if context.invoked_subcommand is not None:
        return
    found = [library.find(name) for name in library.names()]
    rows = [[recipe.name, recipe.about] for recipe in found]
    show(ResultTable("Recipes", ["name", "what it does"], rows), as_json=as_json)


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A built-in recipe's name, or a TOML file.")],
) -> None:
    """Print a recipe as TOML: save it, change it, and give the file to `vitlab pretrain` or `vitlab finetune`."""
    recipe = library.find(name)
    if recipe.name in library.names():
        for line in inspect.cleandoc(library.description(recipe.name)).splitlines():
            print(f"# {line}".rstrip())
    print(to_toml(recipe), end="")
