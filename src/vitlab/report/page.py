"""One self-contained HTML page about one or more runs: results, curves, figures, and how to reproduce them."""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from vitlab import files
from vitlab.errors import UserError
from vitlab.report.content import read_folder
from vitlab.report.sections import Page, page_of
from vitlab.results import ResultTable

NUMERIC = re.compile(r"[\d.,\s%±/+×e–−-]*")


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write a page about runs. It loads nothing and runs no script, so it can be stored, moved and sent as one file.

    Args:
        folders: run directories, folders of run directories (with results, figures and a journey.json of their own),
            or folders of figures.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        UserError: there is nothing to report, a file is malformed, or the page cannot be written.
    """
    if not folders:
        raise UserError("nothing to report: give a run directory, or a folder of run directories")
    html = render(page_of([read_folder(folder) for folder in folders]))
    try:
        files.write_text(out, html)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return out


def render(page: Page) -> str:
    """The page as HTML; all untrusted text is escaped."""
    here = resources.files(__package__)
    style = (here / "style.css").read_text(encoding="utf-8")
    template = (here / "template.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False, keep_trailing_newline=True
    )
    environment.filters["cell"] = cell
    environment.filters["numeric_columns"] = numeric_columns
    digest = Markup("sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode())
    return environment.from_string(template).render(page=page, style=Markup(style), style_hash=digest)


def cell(value: object) -> str:
    """A value of a table as text: numbers rounded to four digits, a missing value as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:,.0f}" if 10_000 <= abs(value) < 1e9 else f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def numeric_columns(table: ResultTable) -> list[bool]:
    """For each column whether it contains numbers only and is right-aligned; the first column names the rows."""
    return [
        column > 0 and bool(table.rows) and all(NUMERIC.fullmatch(cell(row[column])) is not None for row in table.rows)
        for column in range(len(table.columns))
    ]
