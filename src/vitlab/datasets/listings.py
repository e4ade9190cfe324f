"""Text files that come with data sets: read whole, bounded in size, their file names kept inside the folder."""

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

from vitlab.errors import UserError

MAX_TEXT = 2**30


def read_text(path: Path) -> str:
    """A text file as UTF-8.

    Raises:
        UserError: it is missing, unreadable, no UTF-8, or larger than 1 GiB.
    """
    try:
        size = path.stat().st_size
        if size > MAX_TEXT:
            raise UserError(f"{path}: {size:,} bytes are more than the {MAX_TEXT:,} that are read")
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: this is no UTF-8 text; get the data set again") from error


def read_rows(path: Path, columns: int) -> list[list[str]]:
    """The words of each line that is not empty or a comment (#).

    Args:
        path: the file.
        columns: the least number of words a line.

    Raises:
        UserError: it cannot be read, or a line has fewer words.
    """
    rows = [line.split() for line in read_text(path).splitlines() if line.strip() and not line.startswith("#")]
    for number, row in enumerate(rows, 1):
        if len(row) < columns:
            raise UserError(f"{path}: row {number} has {len(row)} of {columns} columns; get the data set again")
    return rows


def read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV file with a header.

    Raises:
        UserError: it cannot be read, or lacks one of `columns`.
    """
    reader = csv.DictReader(read_text(path).splitlines())
    found = reader.fieldnames or []
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(f"{path}: there is no column '{missing[0]}'; its columns are {', '.join(found) or 'none'}")
    try:
        return [{column: row[column] or "" for column in columns} for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}: this is no CSV file ({error}); get the data set again") from error


def read_json(path: Path) -> Any:
    """A JSON file's value.

    Raises:
        UserError: it cannot be read, or is no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: this is no JSON file ({type(error).__name__}); get the data set again") from error


def number(text: str, path: Path, row: int) -> int:
    """A whole number >= 0 in a listing.

    Raises:
        UserError: it is something else.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{path}: row {row} has {text[:40]!r} where a whole number from 0 is needed")
    return int(text)


def inside(folder: Path, name: str, listing: Path) -> Path:
    """A file that a listing names, below `folder`.

    Raises:
        UserError: the name leads out of the folder.
    """
    parts = PurePosixPath(name.lstrip("/")).parts
    if not parts or ".." in parts or "\\" in name or "\0" in name:
        raise UserError(f"{listing}: the file name {name[:80]!r} leads out of the data set; do not trust it")
    return folder.joinpath(*parts)
