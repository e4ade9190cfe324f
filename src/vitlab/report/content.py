"""The files that a report is made of, read as frozen, validated values."""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as validated

from vitlab.errors import UserError, unknown_name
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.schema import Recipe, from_stored_toml
from vitlab.report.metrics import Series, series_of

STRICT = ConfigDict(extra="forbid")
MAX_TEXT_BYTES = 64 * 2**20
MAX_PICTURE_BYTES = 16 * 2**20
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Cell = str | bool | int | float | None
Value = TypeVar("Value")


@validated(frozen=True, config=STRICT)
class Headline:
    """A number worth showing large."""

    label: str
    value: str | int | float
    unit: str = ""


@validated(frozen=True, config=STRICT)
class Table:
    """One file of results: a table to be shown as it is, and its headline numbers.

    Attributes:
        title: what was measured, on what.
        columns, rows: the table.
        summary: what it shows, in a sentence.
        notes: what to know beside it.
        headline: what to show large.
        numbers: the results unrounded, for programs; not shown.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    summary: str | None = None
    notes: tuple[str, ...] = ()
    headline: tuple[Headline, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    @model_validator(mode="after")
    def _rows_fit(self) -> Self:
        for number, row in enumerate(self.rows, start=1):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")
        return self


@validated(frozen=True, config=STRICT)
class FigureEntry:
    """One entry of figures.json: a picture, or why there is none.

    Attributes:
        title: what the picture is, in a few words.
        file: the PNG's name inside the folder; empty where the picture was left out.
        caption: what is shown and what to look for.
        alt: the picture in words, for those who do not see it.
        skipped: why there is no picture; empty where there is one.
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
    """journey.json: what binds several runs together."""

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
class Part:
    """All there is to show of one folder: a run, or a journey's own results.

    Attributes:
        name: the folder's.
        place: where the folder is; it is not shown.
        recipe_text: of recipe.toml; empty where there is none.
        recipe: the same as a value.
        environment: what the results depend on beside the recipe.
        series: the training curves by metric.
        config: the trained model's shape; none where there is no model.
    """

    name: str
    place: Path
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    skipped: tuple[FigureEntry, ...]
    series: tuple[Series, ...]
    recipe_text: str
    recipe: Recipe | None
    environment: dict[str, Any]
    config: ModelConfig | None = None


@dataclass(frozen=True)
class Folder:
    """A run directory, or a journey: a folder of run directories with results of its own."""

    own: Part
    journey: Journey | None
    runs: tuple[Part, ...]


def read_folder(path: Path) -> Folder:
    """Read a run directory, a journey, or a folder of figures.

    Raises:
        UserError: nothing there to report, or a malformed file.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give a run directory, or a folder of run directories")
    folder = Folder(_read_part(path), _read_journey(path), tuple(_read_part(run) for run in _runs(path)))
    own = folder.own
    if not (folder.runs or own.tables or own.pictures or own.skipped or own.series or own.recipe):
        raise UserError(
            f"{path} holds nothing to report: give a run directory (with recipe.toml), a folder of run "
            "directories, or a folder with results/*.json or figures/figures.json"
        )
    return folder


def _is_run(path: Path) -> bool:
    return (path / "recipe.toml").is_file()


def _read_journey(path: Path) -> Journey | None:
    file = path / "journey.json"
    return _read_json(file, TypeAdapter(Journey)) if file.exists() else None


def _runs(path: Path) -> list[Path]:
    found = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir() and _is_run(entry)}
    journey = _read_journey(path)
    first = journey.order if journey else ()
    for name in first:
        if name not in found:
            listing = f"the run directories there are {', '.join(found) or 'none'}"
            raise UserError(f"{path / 'journey.json'}: {unknown_name('run', name, found, listing=listing)}")
    return [found[name] for name in (*dict.fromkeys(first), *(name for name in found if name not in first))]


def _read_part(path: Path) -> Part:
    entries = _read_figures(path)
    recipe_text = _read_text(path / "recipe.toml") if _is_run(path) else ""
    return Part(
        name=path.resolve().name,
        place=path.resolve(),
        tables=_read_tables(path / "results"),
        pictures=tuple(_read_picture(folder, entry) for folder, entry in entries if entry.file),
        skipped=tuple(entry for _, entry in entries if entry.skipped),
        series=_read_series(path / "metrics.jsonl"),
        recipe_text=recipe_text,
        recipe=from_stored_toml(recipe_text, str(path / "recipe.toml")) if _is_run(path) else None,
        environment=_read_environment(path / "environment.json"),
        config=_read_config(path / "model" / "config.json"),
    )


def _read_tables(folder: Path) -> tuple[Table, ...]:
    """By name of the file, but those with headline numbers first."""
    tables = [_read_json(file, TypeAdapter(Table)) for file in sorted(folder.glob("*.json"))]
    return tuple(sorted(tables, key=lambda table: not table.headline))


def _read_figures(path: Path) -> list[tuple[Path, FigureEntry]]:
    adapter = TypeAdapter(tuple[FigureEntry, ...])
    folders = [folder for folder in (path, path / "figures") if (folder / "figures.json").exists()]
    return [(folder, entry) for folder in folders for entry in _read_json(folder / "figures.json", adapter)]


def _read_picture(folder: Path, entry: FigureEntry) -> Picture:
    data = _read_bytes(folder / entry.file, MAX_PICTURE_BYTES)
    if not data.startswith(PNG_SIGNATURE) or len(data) < 24:
        raise UserError(f"{folder / entry.file} is not a PNG picture: draw the figures again")
    width, height = (int.from_bytes(data[start : start + 4], "big") for start in (16, 20))
    encoded = base64.b64encode(data).decode("ascii")
    return Picture(entry, f"data:image/png;base64,{encoded}", width, height)


def _read_environment(path: Path) -> dict[str, Any]:
    return _read_json(path, TypeAdapter(dict[str, Any])) if path.exists() else {}


def _read_config(path: Path) -> ModelConfig | None:
    if not path.exists():
        return None
    value = _read_json(path, TypeAdapter(dict[str, Any]))
    kinds: dict[Any, type[ViTConfig] | type[ResNetConfig]] = {"vit": ViTConfig, "resnet": ResNetConfig}
    kind, fields = kinds.get(value.get("model")), value.get("config")
    if kind is None or not isinstance(fields, dict):
        raise UserError(f"{path} describes no model that is known here: save the model again")
    try:
        return kind(**fields)
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None


def _read_series(path: Path) -> tuple[Series, ...]:
    return series_of(_read_text(path), str(path)) if path.exists() else ()


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > limit:
        raise UserError(f"{path} is larger than {limit // 2**20} MiB, too large for a report: make it smaller")
    return data


def _read_text(path: Path) -> str:
    try:
        return _read_bytes(path, MAX_TEXT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): write it again") from None


def _read_json(path: Path, adapter: TypeAdapter[Value]) -> Value:
    try:
        return adapter.validate_python(json.loads(_read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(piece) for piece in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {where + ': ' if where else ''}{reason}") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: also of numbers with thousands of digits
        raise UserError(f"{path} is not valid JSON: {error}") from None
