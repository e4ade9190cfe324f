"""One self-contained HTML page about one or more runs: the sections that their folders fill, and the HTML."""

import base64
import dataclasses
import hashlib
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from vitlab import files
from vitlab.errors import UserError
from vitlab.report.charts import Chart, Series, charts_of, is_accuracy, sentence_case
from vitlab.report.comparison import comparison, last_name
from vitlab.report.confusion import confusion_charts
from vitlab.report.content import FigureEntry, Folder, Picture, RunContent, read_folder
from vitlab.report.cost_table import cost_table
from vitlab.results import Headline, ResultTable

NUMERIC = re.compile(r"[\d.,\s%±/+×e–−-]*")
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}


@dataclass(frozen=True)
class Section:
    """The content under one heading; empty fields are not shown."""

    title: str
    anchor: str = ""
    lead: str = ""
    facts: tuple[str, ...] = ()
    headline: tuple[Headline, ...] = ()
    tables: tuple[ResultTable, ...] = ()
    charts: tuple[Chart, ...] = ()
    pictures: tuple[Picture, ...] = ()
    skipped: tuple[FigureEntry, ...] = ()
    recipe: str = ""
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show under the heading."""
        words_only = self.lead or self.facts or self.recipe or self.environment
        return not (words_only or self.headline or self.tables or self.charts or self.pictures or self.skipped)


@dataclass(frozen=True)
class Page:
    """The complete page."""

    title: str
    lead: str
    headline: tuple[Headline, ...]
    sections: tuple[Section, ...]


def page_of(folders: Sequence[Folder]) -> Page:
    """The page about these folders: one run, one journey, or several of them in sequence."""
    if len(folders) == 1:
        folder = folders[0]
        return _journey_page(folder) if folder.runs or folder.journey else _run_page(folder.own)
    every = [run for folder in folders for run in (folder.own, *folder.runs)]
    sections = [
        Section("Comparison", tables=comparison(every)),
        *(section for folder in folders for section in _chapter(folder)),
    ]
    return Page(f"Comparison of {len(folders)} results", "", (), _anchored(sections))


def _run_page(run: RunContent) -> Page:
    sections = [
        Section("Results", tables=run.tables, charts=confusion_charts(run.tables)),
        Section("Training", charts=tuple(charts_of(run.series)), tables=_costs(run)),
        Section("Figures", pictures=run.pictures, skipped=run.skipped),
        Section("How to reproduce it", facts=_facts(run), recipe=run.recipe_text, environment=run.environment),
    ]
    title = sentence_case(run.recipe.name if run.recipe else run.name)
    return Page(title, _lead(run), _headline(run), _anchored(sections))


def _journey_page(folder: Folder) -> Page:
    own, journey = folder.own, folder.journey
    headline = _headline(own)
    sections = [
        *([] if journey else [Section("Comparison", tables=comparison(folder.runs))]),
        Section("Results", tables=own.tables, charts=confusion_charts(own.tables)),
        *(
            _run_section(run, sentence_case(run.name), headline=_headline(run) if headline else ())
            for run in folder.runs
        ),
        Section("Figures", pictures=own.pictures, skipped=own.skipped),
        Section("Environment", environment=own.environment),
    ]
    if not headline:
        headline = tuple(
            dataclasses.replace(number, label=f"{sentence_case(run.name)}: {number.label}")
            for run in folder.runs
            for number in _headline(run)
        )
    title = journey.title if journey else sentence_case(own.name)
    lead = journey.lead if journey else f"Comparison of {len(folder.runs)} runs."
    return Page(title, lead, headline, _anchored(sections))


def _chapter(folder: Folder) -> list[Section]:
    """One of several folders: its own section, then one for each of its runs."""
    own = folder.own
    if not (folder.runs or folder.journey):
        return [_run_section(own, sentence_case(own.name), headline=_headline(own))]
    title = folder.journey.title if folder.journey else sentence_case(own.name)
    opening = dataclasses.replace(
        _run_section(own, title, headline=_headline(own)), lead=folder.journey.lead if folder.journey else ""
    )
    runs = [_run_section(run, f"{title}: {sentence_case(run.name)}", headline=_headline(run)) for run in folder.runs]
    return [opening, *runs]


def _run_section(run: RunContent, title: str, *, headline: tuple[Headline, ...]) -> Section:
    return Section(
        title,
        lead=_lead(run),
        facts=_facts(run),
        headline=headline,
        tables=(*run.tables, *_costs(run)),
        charts=(*charts_of(run.series), *confusion_charts(run.tables)),
        pictures=run.pictures,
        skipped=run.skipped,
        recipe=run.recipe_text,
        environment=run.environment,
    )


def _costs(run: RunContent) -> tuple[ResultTable, ...]:
    table = cost_table(run)
    return () if table is None else (table,)


def _anchored(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections that are not empty, with anchors for links."""
    shown = [section for section in sections if not section.is_empty]
    return tuple(dataclasses.replace(section, anchor=f"section-{n}") for n, section in enumerate(shown, start=1))


def _lead(run: RunContent) -> str:
    about = run.recipe.about.strip() if run.recipe else ""
    return f"{about[:1].upper()}{about[1:]}{'' if about.endswith('.') else '.'}" if about else ""


def _facts(run: RunContent) -> tuple[str, ...]:
    recipe = run.recipe
    if recipe is None:
        return ()
    length = f"{recipe.steps:,} steps" if recipe.steps is not None else f"{recipe.epochs:g} epochs"
    return (
        f"from {last_name(recipe.init_from)}" if recipe.init_from else recipe.model.name,
        *((recipe.data.source,) if recipe.data.source else ()),
        f"{length} with batch size {recipe.batch_size:,}" if recipe.steps is not None else length,
        f"{OPTIMIZERS[recipe.optimizer.kind]}, learning rate {recipe.optimizer.learning_rate:g}",
        f"seed {recipe.seed}",
    )


def _headline(run: RunContent) -> tuple[Headline, ...]:
    """The numbers to show large: those of the results, otherwise the final values of training."""
    chosen = tuple(number for table in run.tables for number in table.headline)
    return chosen or tuple(_final_values(run.series))


def _final_values(series: Sequence[Series]) -> list[Headline]:
    numbers = [
        Headline(sentence_case(line.name), f"{100 * line.last:.1f}", "%")
        for line in series
        if is_accuracy(line.name) and line.name != "accuracy"
    ]
    for line in series:
        if line.name == "loss":
            numbers.append(Headline("Final training loss", f"{line.last:.3g}"))
        if line.name == "images_per_second":
            numbers.append(Headline("Throughput", f"{statistics.median(line.values):,.0f}", "images/s"))
    return numbers


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
