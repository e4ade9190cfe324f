"""The contents of run directories and folders of figures, read as frozen, validated values."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, model_validator
from pydantic.dataclasses import dataclass as validated

from vitlab.errors import UserError, unknown_name
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.schema import Recipe, from_stored_toml
from vitlab.report.charts import Series, series_of
from vitlab.results import STRICT, ResultTable, read_bytes, read_json, read_table, read_text

MAX_PICTURE_BYTES = 16 * 2**20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@validated(frozen=True, config=STRICT)
class FigureEntry:
    """One entry of figures.json: a figure, or why it was not drawn.

    Attributes:
        title: what the figure is, in a few words.
        file: the name of the PNG in the folder; empty if the figure was not drawn.
        caption: what is shown and what to look for.
        alt: the figure in words, for readers who cannot see it.
        skipped: why the figure was not drawn; empty if it was.
    """

    title: str
    file: str = ""
    caption: str = ""
    alt: str = ""
    skipped: str = ""

    @model_validator(mode="after")
    def _picture_or_reason(self) -> Self:
        if bool(self.file) == bool(self.skipped):
            raise ValueError("an entry has either a file or the reason why it was skipped")
        if self.file and not (self.caption and self.alt):
            raise ValueError(f"{self.file} needs a caption and an alt text")
        if Path(self.file).name != self.file:
            raise ValueError(f"{self.file} must be the name of a file beside figures.json")
        return self


@validated(frozen=True, config=STRICT)
class Journey:
    """journey.json: title, introduction and order of several runs that belong together."""

    title: str
    lead: str = ""
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A figure with its picture as a data URI; width and height in pixels."""

    entry: FigureEntry
    data_uri: str
    width: int
    height: int


@dataclass(frozen=True)
class RunContent:
    """The content of one folder: a run, or the results of a journey itself.

    Attributes:
        name: of the folder.
        path: of the folder; it is not shown.
        tables, pictures, skipped: results, figures, and figures that were not drawn.
        series: the training curves by metric.
        recipe_text: of recipe.toml; empty if there is none.
        recipe: the same as a value.
        environment: what the results depend on besides the recipe.
        config: of the trained model; None if there is no model.
    """

    name: str
    path: Path
    tables: tuple[ResultTable, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[FigureEntry, ...]
    series: tuple[Series, ...]
    recipe_text: str
    recipe: Recipe | None
    environment: dict[str, Any]
    config: ModelConfig | None = None


@dataclass(frozen=True)
class Folder:
    """A run directory, or a folder of run directories, possibly with results and a journey.json of its own."""

    own: RunContent
    journey: Journey | None
    runs: tuple[RunContent, ...]


def read_folder(path: Path) -> Folder:
    """Read a run directory, a journey, or a folder of figures.

    Raises:
        UserError: there is nothing to report, or a file is malformed.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give a run directory, or a folder of run directories")
    folder = Folder(_read_run(path), _read_journey(path), tuple(_read_run(run) for run in _runs(path)))
    own = folder.own
    if not (folder.runs or own.tables or own.pictures or own.skipped or own.series or own.recipe):
        raise UserError(
            f"{path} contains nothing to report: give a run directory (with recipe.toml), a folder of run "
            "directories, or a folder with results/*.json or figures/figures.json"
        )
    return folder


def _is_run(path: Path) -> bool:
    return (path / "recipe.toml").is_file()


def _read_journey(path: Path) -> Journey | None:
    file = path / "journey.json"
    return read_json(file, TypeAdapter(Journey)) if file.exists() else None


def _runs(path: Path) -> list[Path]:
    found = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir() and _is_run(entry)}
    journey = _read_journey(path)
    first = journey.order if journey else ()
    for name in first:
        if name not in found:
            listing = f"run directories: {', '.join(found) or 'there are none'}"
            raise UserError(f"{path / 'journey.json'}: {unknown_name('run', name, found, listing=listing)}")
    return [found[name] for name in (*dict.fromkeys(first), *(name for name in found if name not in first))]


def _read_run(path: Path) -> RunContent:
    entries = _read_figures(path)
    recipe_text = read_text(path / "recipe.toml") if _is_run(path) else ""
    metrics, environment = path / "metrics.jsonl", path / "environment.json"
    return RunContent(
        name=path.resolve().name,
        path=path.resolve(),
        tables=_read_tables(path / "results"),
        pictures=tuple(_read_picture(folder, entry) for folder, entry in entries if entry.file),
        skipped=tuple(entry for _, entry in entries if entry.skipped),
        series=series_of(read_text(metrics), str(metrics)) if metrics.exists() else (),
        recipe_text=recipe_text,
        recipe=from_stored_toml(recipe_text, str(path / "recipe.toml")) if _is_run(path) else None,
        environment=read_json(environment, TypeAdapter(dict[str, Any])) if environment.exists() else {},
        config=_read_config(path / "model" / "config.json"),
    )


def _read_tables(folder: Path) -> tuple[ResultTable, ...]:
    """Sorted by file name, those with headline numbers first; a result that another table contains is left out."""
    tables = [read_table(file) for file in sorted(folder.glob("*.json"))]
    tables = [table for table in tables if not any(_contains(other, table) for other in tables if other is not table)]
    return tuple(sorted(tables, key=lambda table: not table.headline))


def _contains(other: ResultTable, table: ResultTable) -> bool:
    """Whether `other` has all numbers of `table` and more, as `vitlab evaluate` adds to the test of training."""
    more = len(other.numbers) > len(table.numbers) > 0 and other.title == table.title
    return more and all(name in other.numbers and other.numbers[name] == table.numbers[name] for name in table.numbers)


def _read_figures(path: Path) -> list[tuple[Path, FigureEntry]]:
    adapter = TypeAdapter(tuple[FigureEntry, ...])
    folders = [folder for folder in (path, path / "figures") if (folder / "figures.json").exists()]
    return [(folder, entry) for folder in folders for entry in read_json(folder / "figures.json", adapter)]


def _read_picture(folder: Path, entry: FigureEntry) -> Picture:
    data = read_bytes(folder / entry.file, MAX_PICTURE_BYTES)
    if not data.startswith(PNG_SIGNATURE) or len(data) < 24:
        raise UserError(f"{folder / entry.file} is not a PNG image: draw the figures again")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    encoded = base64.b64encode(data).decode("ascii")
    return Picture(entry, f"data:image/png;base64,{encoded}", width, height)


def _read_config(path: Path) -> ModelConfig | None:
    if not path.exists():
        return None
    value = read_json(path, TypeAdapter(dict[str, Any]))
    kinds: dict[Any, type[ViTConfig] | type[ResNetConfig]] = {"vit": ViTConfig, "resnet": ResNetConfig}
    kind, fields = kinds.get(value.get("model")), value.get("config")
    if kind is None or not isinstance(fields, dict):
        raise UserError(f"{path} does not describe a known kind of model: save the model again")
    try:
        return kind(**fields)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None
