"""A table of results: one value that commands print, run directories store as JSON, and reports show."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as validated

from vitlab import files
from vitlab.errors import UserError

STRICT = ConfigDict(extra="forbid")
MAX_TEXT_BYTES = 64 * 2**20
UNSAFE_IN_NAMES = re.compile(r"[^\w.]+")
LONGEST_NAME = 100

Cell = str | bool | int | float | None
Value = TypeVar("Value")
_Texts = Annotated[Sequence[str], AfterValidator(tuple)]
_Cells = Annotated[Sequence[Cell], AfterValidator(tuple)]


@validated(frozen=True, config=STRICT)
class Headline:
    """A number that a report shows large."""

    label: str
    value: str | int | float
    unit: str = ""


@validated(frozen=True, config=STRICT)
class ResultTable:
    """A table of results.

    Attributes:
        title: what was measured, and on what.
        columns, rows: the table; every row has a cell for each column.
        summary: one sentence that says what the table shows.
        notes: what a reader should know beside it.
        headline: the numbers that a report shows large.
        numbers: the same results unrounded, by name, for programs. An accuracy has "dataset", the catalogue's name of
            the data, by which reports find the paper's row for it.
    """

    title: str
    columns: _Texts = ()
    rows: Annotated[Sequence[_Cells], AfterValidator(tuple)] = ()
    summary: str | None = None
    notes: _Texts = ()
    headline: Annotated[Sequence[Headline], AfterValidator(tuple)] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")
        return self

    def to_json(self, *, indent: int | None = None) -> str:
        """The table as JSON, its words first."""
        fields = asdict(self)
        first = {name: fields.pop(name) for name in ("title", "summary")}
        return json.dumps({**first, **fields}, ensure_ascii=False, indent=indent)


def write_table(table: ResultTable, path: Path) -> None:
    """Write the table as JSON, completely or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        files.write_text(path, table.to_json(indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; the result is not stored") from None


def read_table(path: Path) -> ResultTable:
    """Read a table that was written as JSON.

    Raises:
        UserError: a file that cannot be read, is larger than 64 MiB, or holds something else.
    """
    return read_json(path, TypeAdapter(ResultTable))


def file_name(*words: str) -> str:
    """The name of a file of results from a verb and what it measured, such as "evaluate-cifar10.json"."""
    return "-".join(UNSAFE_IN_NAMES.sub("-", word).strip("-") for word in words if word)[:LONGEST_NAME] + ".json"


def percent(share: float) -> str:
    """A share as the field writes it, such as 81.30 %."""
    return f"{100 * share:.2f} %"


def read_bytes(path: Path, limit: int) -> bytes:
    """A file's bytes, at most `limit`.

    Raises:
        UserError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise UserError(f"{path} is larger than {limit // 2**20} MiB, too large for a report: make it smaller")
    return data


def read_text(path: Path) -> str:
    """A text file of at most 64 MiB.

    Raises:
        UserError: it cannot be read, is larger, or is not UTF-8.
    """
    try:
        return read_bytes(path, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): write it again") from None


def read_json(path: Path, adapter: TypeAdapter[Value]) -> Value:
    """A value from a JSON file of at most 64 MiB, validated.

    Raises:
        UserError: it cannot be read, is larger, is no JSON, or not such a value.
    """
    try:
        return adapter.validate_python(json.loads(read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(piece) for piece in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where + ': ' if where else ''}{reason}") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also of numbers with thousands of digits
        raise UserError(f"{path} is not valid JSON: {error}") from None
