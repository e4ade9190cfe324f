"""Results: a short table on stdout, or JSON with --json, and the same table as a file for the report."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vitlab import files
from vitlab.errors import UserError

Cell = str | int | float | None
UNFIT = re.compile(r"[^\w.]+")
LONGEST_NAME = 100


@dataclass(frozen=True)
class ResultTable:
    """A table of results, as it is printed, stored and shown in the report.

    Attributes:
        title: what was measured, on what.
        summary: one sentence that says what the table shows.
        columns, rows: the table.
        notes: what a reader should know beside it.
        headline: big numbers of the report: {"label", "value", "unit"}.
        numbers: the same results unrounded, by name.
        words: columns of words, which are aligned at the left like the first one.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    summary: str | None = None
    notes: Sequence[str] = ()
    headline: Sequence[dict[str, str]] = ()
    numbers: dict[str, Any] = field(default_factory=dict)
    words: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """The table as a JSON value."""
        return {
            "title": self.title,
            "summary": self.summary,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "notes": list(self.notes),
            "headline": list(self.headline),
            "numbers": self.numbers,
        }


def show(table: ResultTable, *, as_json: bool) -> None:
    """Print the table for people, or as JSON for programs."""
    if as_json:
        print(json.dumps(table.as_dict(), ensure_ascii=False))
        return
    drawn = Table()
    for number, column in enumerate(table.columns):
        drawn.add_column(column, justify="left" if number == 0 or column in table.words else "right", overflow="fold")
    for row in table.rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else 110)
    console.print(table.title, style="bold")
    console.print(drawn)
    for note in table.notes:
        console.print(note)


def store(table: ResultTable, path: Path) -> None:
    """Write the table as JSON, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        files.write_json(path, table.as_dict())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; the result is not kept there") from None


def file_of(verb: str, *words: str) -> str:
    """The name of a verb's file of results about some data, such as "evaluate-cifar10.json"."""
    return "-".join(UNFIT.sub("-", word).strip("-") for word in (verb, *words) if word)[:LONGEST_NAME] + ".json"


def percent(share: float) -> str:
    """A share as the field writes it, such as 81.30 %."""
    return f"{100 * share:.2f} %"
