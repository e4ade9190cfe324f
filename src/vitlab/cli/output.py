"""Results on stdout, as a short table for people or JSON for programs, and in the run that was measured."""

from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vitlab.results import ResultTable, write_table


def show(table: ResultTable, *, as_json: bool, text_columns: Collection[str] = ()) -> None:
    """Print the table for people, or as JSON for programs.

    Args:
        table: what to print.
        as_json: whether to print JSON.
        text_columns: columns of text, which are aligned at the left like the first one.
    """
    if as_json:
        print(table.to_json())
        return
    drawn = Table()
    for number, column in enumerate(table.columns):
        left = number == 0 or column in text_columns
        drawn.add_column(column, justify="left" if left else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else 110)
    console.print(table.title, style="bold")
    console.print(drawn)
    for note in table.notes:
        console.print(note)


def store_in_run(table: ResultTable, model: str, file: str) -> None:
    """Write the table to the results of MODEL if that is a run's directory.

    Raises:
        UserError: it cannot be written there.
    """
    if (Path(model) / "recipe.toml").exists():
        write_table(table, Path(model) / "results" / file)
