"""`vitlab recipes`: the named recipes by family; `list` has them one by one, `show` prints one as TOML."""

from typing import Annotated

import typer

from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.recipes import library
from vitlab.recipes.entries import NOT_MEASURED, Entry, figure
from vitlab.recipes.schema import to_toml
from vitlab.results import ResultTable

app = options.new_app()


@app.callback(invoke_without_command=True)
def overview(context: typer.Context, as_json: options.JsonOption = False) -> None:
    """The named recipes by family; with --json, every recipe."""
    if context.invoked_subcommand is not None:
        return
    if as_json:
        show(_table("Recipes", library.entries()), as_json=True)
        return
    rows: list[list[str | int | None]] = []
    for family in library.FAMILIES:
        found = family.entries()
        if family.pattern:
            rows.append([family.pattern, family.about, family.name, len(found)])
        else:
            rows += [[entry.name, entry.recipe.about, family.name, None] for entry in found]
    notes = ["`vitlab recipes list FAMILY` lists a family's recipes, `vitlab recipes show NAME` prints one as TOML."]
    show(ResultTable("Recipes", ["name", "what it does", "family", "recipes"], rows, notes=notes), as_json=False)


@app.command("list")
def list_recipes(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="One that `vitlab recipes` lists.")],
    as_json: options.JsonOption = False,
) -> None:
    """The recipes of one family, with their cost and expected score."""
    found = library.family(family)
    entries = list(found.entries())
    if as_json:
        show(_table(f"Recipes: {found.about}", entries), as_json=True)
        return
    rows = [[entry.name, *_cost(entry), entry.expected.removesuffix(f"; {NOT_MEASURED} here")] for entry in entries]
    notes = ["Scores are those of the publications that are named; none was measured with vitlab."]
    columns = ["name", "exaFLOPs", "TPUv3-core-days", "expected"]
    show(ResultTable(f"Recipes: {found.about}", columns, rows, notes=notes if found.pattern else []), as_json=False)


@app.command("show")
def show_recipe(name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe's name, or a TOML file.")]) -> None:
    """Print a recipe as TOML: save it, change it, and give the file to `vitlab pretrain` or `vitlab finetune`."""
    recipe = library.load_recipe(name)
    entry = library.entry(name)
    if entry is not None:
        for line in entry.description().splitlines():
            print(f"# {line}".rstrip())
    print(to_toml(recipe), end="")


def _table(title: str, entries: list[Entry]) -> ResultTable:
    rows = [[entry.name, entry.recipe.about, *_cost(entry), entry.expected] for entry in entries]
    columns = ["name", "what it does", "exaFLOPs", "TPUv3-core-days", "expected"]
    return ResultTable(title, columns, rows)


def _cost(entry: Entry) -> list[str | None]:
    """ExaFLOPs and TPUv3-core-days, where they do not depend on the user's model and data."""
    return [None if value is None else figure(value) for value in (entry.exaflops, entry.core_days)]
