"""What stands on a report's page, and in what order: from folders to sections."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from vitlab.recipes.schema import Recipe
from vitlab.report.charts import Chart, charts_of, is_accuracy, words
from vitlab.report.comparison import comparison
from vitlab.report.confusion import confusion_charts
from vitlab.report.content import FigureEntry, Folder, Part, Picture
from vitlab.report.ledger import ledger
from vitlab.report.metrics import Series
from vitlab.results import Headline, ResultTable


@dataclass(frozen=True)
class Section:
    """What stands under one heading; what is empty is not shown."""

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
    """The whole page."""

    title: str
    lead: str
    headline: tuple[Headline, ...]
    sections: tuple[Section, ...]


def page_of(folders: Sequence[Folder]) -> Page:
    """The page about these folders: one run, one journey, or several of them one after the other."""
    if len(folders) == 1:
        folder = folders[0]
        return _journey_page(folder) if folder.runs or folder.journey else _run_page(folder.own)
    every = [part for folder in folders for part in (folder.own, *folder.runs)]
    sections = [_side_by_side(every), *(section for folder in folders for section in _chapter(folder))]
    return Page(f"{len(folders)} results side by side", "", (), _anchored(sections))


def _run_page(part: Part) -> Page:
    sections = [
        Section("Results", tables=part.tables, charts=confusion_charts(part.tables)),
        Section("Training", charts=tuple(charts_of(part.series)), tables=_costs(part)),
        Section("Pictures", pictures=part.pictures, skipped=part.skipped),
        Section("How to repeat it", facts=_facts(part), recipe=part.recipe_text, environment=part.environment),
    ]
    return Page(_title(part), _lead(part), _headline(part), _anchored(sections))


def _journey_page(folder: Folder) -> Page:
    own, journey = folder.own, folder.journey
    headline = _headline(own)
    sections = [
        *([] if journey else [_side_by_side(folder.runs)]),
        Section("Results", tables=own.tables, charts=confusion_charts(own.tables)),
        *(_run_section(run, words(run.name), headline=_headline(run) if headline else ()) for run in folder.runs),
        Section("Pictures", pictures=own.pictures, skipped=own.skipped),
        Section("Environment", environment=own.environment),
    ]
    if not headline:
        headline = tuple(
            dataclasses.replace(number, label=f"{words(run.name)}: {number.label}")
            for run in folder.runs
            for number in _headline(run)
        )
    title = journey.title if journey else words(own.name)
    lead = journey.lead if journey else f"{len(folder.runs)} runs side by side."
    return Page(title, lead, headline, _anchored(sections))


def _chapter(folder: Folder) -> list[Section]:
    """A folder as one of several: its own section, then one for each of its runs."""
    own = folder.own
    if not (folder.runs or folder.journey):
        return [_run_section(own, words(own.name), headline=_headline(own))]
    title = folder.journey.title if folder.journey else words(own.name)
    opening = dataclasses.replace(
        _run_section(own, title, headline=_headline(own)), lead=folder.journey.lead if folder.journey else ""
    )
    runs = [_run_section(run, f"{title}: {words(run.name)}", headline=_headline(run)) for run in folder.runs]
    return [opening, *runs]


def _run_section(run: Part, title: str, *, headline: tuple[Headline, ...]) -> Section:
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


def _side_by_side(parts: Sequence[Part]) -> Section:
    return Section("Side by side", tables=comparison(parts))


def _costs(part: Part) -> tuple[ResultTable, ...]:
    table = ledger(part)
    return () if table is None else (table,)


def _anchored(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections that show something, with names for links."""
    shown = [section for section in sections if not section.is_empty]
    return tuple(dataclasses.replace(section, anchor=f"section-{n}") for n, section in enumerate(shown, start=1))


def _title(part: Part) -> str:
    return words(part.recipe.name if part.recipe else part.name)


def _lead(part: Part) -> str:
    about = part.recipe.about.strip() if part.recipe else ""
    return f"{about[:1].upper()}{about[1:]}{'' if about.endswith('.') else '.'}" if about else ""


def _facts(part: Part) -> tuple[str, ...]:
    recipe = part.recipe
    if recipe is None:
        return ()
    length = f"{recipe.steps:,} steps" if recipe.steps is not None else f"{recipe.epochs:g} epochs"
    return (
        f"from {_last_name(recipe.init_from)}" if recipe.init_from else recipe.model.name,
        *((recipe.data.source,) if recipe.data.source else ()),
        f"{length} of {recipe.batch_size:,} images" if recipe.steps is not None else length,
        f"{_optimizer(recipe)} at {recipe.optimizer.learning_rate:g}",
        f"seed {recipe.seed}",
    )


def _last_name(source: str) -> str:
    """A path's last folder, which is enough to know it by and says nothing of the machine."""
    return source if "://" in source else PurePath(source).name


def _optimizer(recipe: Recipe) -> str:
    return {"adamw": "AdamW", "sgd": "SGD"}[recipe.optimizer.kind]


def _headline(part: Part) -> tuple[Headline, ...]:
    """The numbers to show large: those of the results, else those that the training ended with."""
    chosen = tuple(number for table in part.tables for number in table.headline)
    return chosen or tuple(_ending(part.series))


def _ending(series: Sequence[Series]) -> list[Headline]:
    numbers = [
        Headline(words(line.name), f"{100 * line.last:.1f}", "%")
        for line in series
        if is_accuracy(line.name) and line.name != "accuracy"
    ]
    for line in series:
        if line.name == "loss":
            numbers.append(Headline("Training loss at the end", f"{line.last:.3g}"))
        if line.name == "images_per_second":
            numbers.append(Headline("Images per second", f"{statistics.median(line.values):,.0f}"))
    return numbers
