"""One self-contained HTML page about one or more runs: numbers, curves, pictures, and how to repeat them."""

import base64
import hashlib
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vitlab import files
from vitlab.errors import UserError
from vitlab.report.charts import Chart, charts_of, is_accuracy, words
from vitlab.report.content import FigureEntry, Folder, Headline, Part, Picture, Table, read_folder

NUMERIC = re.compile(r"[\d.,\s%±/+×e–-]*")


@dataclass(frozen=True)
class Section:
    """What stands under one heading; empty things are not shown."""

    anchor: str
    title: str
    lead: str = ""
    facts: tuple[str, ...] = ()
    headline: tuple[Headline, ...] = ()
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()
    skipped: tuple[FigureEntry, ...] = ()
    recipe: str = ""
    environment: dict[str, Any] | None = None


@dataclass(frozen=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    headline: tuple[Headline, ...]
    sections: tuple[Section, ...]


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write a page about runs; it loads nothing, runs no script, and can be sent by mail.

    Args:
        folders: run directories, folders of run directories (with results, figures and a journey.json of their own),
            or folders of figures.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        UserError: nothing to report, a malformed file, or a place that cannot be written to.
    """
    if not folders:
        raise UserError("nothing to report: give a run directory, or a folder of run directories")
    html = render(page_of([read_folder(folder) for folder in folders]))
    try:
        files.write_text(out, html)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another place") from None
    return out


def page_of(folders: Sequence[Folder]) -> Page:
    """What the page shows of these folders, in order."""
    if len(folders) > 1:
        parts = [section for folder in folders for section in _chapter(folder)]
        lead = "Each section is one of the folders that were given."
        return Page(f"{len(folders)} results side by side", lead, (), _anchored(parts))
    folder = folders[0]
    if folder.runs or folder.journey:
        return _journey_page(folder)
    part = folder.own
    sections = [
        Section("", "Results", tables=part.tables),
        Section("", "Training", charts=tuple(charts_of(part.series))),
        Section("", "Pictures", pictures=part.pictures, skipped=part.skipped),
        Section("", "How to repeat it", facts=_facts(part), recipe=part.recipe_text, environment=part.environment),
    ]
    return Page(_title(part), _lead(part), _headline(part), _anchored(sections))


def _journey_page(folder: Folder) -> Page:
    own, journey = folder.own, folder.journey
    headline = _headline(own)
    sections = [
        Section("", "Results", tables=own.tables),
        *(_run_section(run, _words(run.name), with_headline=bool(headline)) for run in folder.runs),
        Section("", "Pictures", pictures=own.pictures, skipped=own.skipped),
        Section("", "Environment", environment=own.environment),
    ]
    if not headline:
        headline = tuple(
            Headline(f"{_words(run.name)}: {number.label}", number.value, number.unit)
            for run in folder.runs
            for number in _headline(run)
        )
    if journey:
        return Page(journey.title, journey.lead, headline, _anchored(sections))
    return Page(_words(own.name), f"{len(folder.runs)} runs side by side.", headline, _anchored(sections))


def _chapter(folder: Folder) -> list[Section]:
    """A folder as one of several: its own section, then one for each of its runs."""
    own = folder.own
    if not (folder.runs or folder.journey):
        return [_run_section(own, _title(own), with_headline=True)]
    title = folder.journey.title if folder.journey else _words(own.name)
    lead = folder.journey.lead if folder.journey else ""
    first = Section(
        "", title, lead, headline=_headline(own), tables=own.tables, pictures=own.pictures, skipped=own.skipped
    )
    runs = [_run_section(run, f"{title}: {_words(run.name)}", with_headline=True) for run in folder.runs]
    return [first, *runs]


def _run_section(run: Part, title: str, *, with_headline: bool) -> Section:
    return Section(
        "",
        title,
        _lead(run),
        _facts(run),
        _headline(run) if with_headline else (),
        run.tables,
        tuple(charts_of(run.series)),
        run.pictures,
        run.skipped,
        run.recipe_text,
        run.environment,
    )


def _anchored(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections that show something, numbered for links."""
    import dataclasses

    shown = [
        section
        for section in sections
        if any(getattr(section, field.name) for field in dataclasses.fields(section) if field.name not in ("title", "anchor"))
    ]
    return tuple(dataclasses.replace(section, anchor=f"section-{n}") for n, section in enumerate(shown, start=1))
