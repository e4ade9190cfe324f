"""Runs side by side in the form of the paper's Tables 2 and 6, with the paper's own numbers, marked as such."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from vitlab.recipes import cost
from vitlab.recipes.schema import Recipe
from vitlab.report.content import Part
from vitlab.report.ledger import UTILISATION, exaflops_of
from vitlab.report.published import CATALOG, MARK, TABLE_2, TABLE_6, TRANSFER
from vitlab.results import ResultTable

PARTS = re.compile(r" \((train|test|dev|dev-train|validation) part\)$")
TITLE = "Accuracy on "
VTAB_TITLE = re.compile(r"VTAB-1k of (.+), (?:linear|fine-tuned)$")
NAMING = {"seed", "name", "about"}
PLACES = {"init_from", "data.source"}
MOST_DIFFERENCES = 3
CORE_DAYS = f"TPUv3-core-days at {UTILISATION:.0%}"
NOT_ITS_START = (
    f"The paper's own numbers are marked '{MARK}'. Compute is that of the run itself, without what its start had cost; "
    "the paper's is that of pretraining."
)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        name: how they are called.
        model: what was trained, or what it started from.
        epochs: passes over the images; none where that is not known.
        runs: how many they are.
        accuracies: in percent by data set, one for each run that has been tested on it.
        exaflops: of each run.
    """

    name: str
    model: str
    epochs: float | None
    runs: int
    accuracies: Mapping[str, tuple[float, ...]]
    exaflops: tuple[float, ...]


def comparison(parts: Sequence[Part]) -> tuple[ResultTable, ...]:
    """Both tables, where two runs or more have an accuracy; else none."""
    groups = grouped(parts)
    if sum(group.runs for group in groups) < 2:
        return ()
    return as_table_2(groups), as_table_6(groups)


def grouped(parts: Sequence[Part]) -> list[Group]:
    """The runs with accuracies, those that differ only in their seed together, in the order of the first of each.

    A run counts once, however often it is given. VTAB's results lie in a folder of their own: they are the run's that
    was tested, where that is among the parts, and a column of their own otherwise.
    """
    by_recipe: dict[str, list[Part]] = {}
    each_once = {part.place: part for part in parts}
    for part in _with_vtab(list(each_once.values())):
        if accuracies_of(part):
            alike = str(part.place)
            if part.recipe is not None:
                alike = part.recipe.model_copy(update={"seed": 0}).model_dump_json()
            by_recipe.setdefault(alike, []).append(part)
    names = names_of([(_name(alike), alike[0]) for alike in by_recipe.values()])
    return [_group(name, alike) for name, alike in zip(names, by_recipe.values(), strict=True)]


def _with_vtab(parts: Sequence[Part]) -> list[Part]:
    """Parts, where those that hold nothing but a run's VTAB results have become part of that run."""
    found = list(parts)
    for part in parts:
        tested = [match[1] for table in part.tables if (match := VTAB_TITLE.match(table.title))]
        owners = [run for run in found if run.recipe is not None and run.name in tested]
        if part.recipe is None and len(tested) == len(part.tables) == len(owners) == 1:
            owner = owners[0]
            found[found.index(owner)] = replace(owner, tables=(*owner.tables, *part.tables))
            found.remove(part)
    return found


def accuracies_of(part: Part) -> dict[str, float]:
    """Top-1 in percent by data set, as the results tell; VTAB's mean too."""
    found = {}
    for table in part.tables:
        top1, mean = table.numbers.get("top1"), table.numbers.get("mean")
        if table.title.startswith(TITLE) and isinstance(top1, int | float):
            name = str(table.numbers.get("dataset") or PARTS.sub("", table.title.removeprefix(TITLE)))
            found[CATALOG.get(name.partition("=")[0], _last(name))] = 100 * float(top1)
        elif VTAB_TITLE.match(table.title) and isinstance(mean, int | float):
            found["VTAB"] = 100 * float(mean)
    return found


def as_table_2(groups: Sequence[Group]) -> ResultTable:
    """A column for each group and for each model of the paper's Table 2; a row for each data set, and core-days."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TABLE_2[0].accuracies if name not in own)]
    rows: list[tuple[str | None, ...]] = []
    for name in names:
        ours = [_spread(group, name) for group in groups]
        rows.append((name, *ours, *(column.accuracies.get(name) for column in TABLE_2)))
    days = [_days(group.exaflops) for group in groups]
    rows.append((CORE_DAYS, *days, *(column.core_days for column in TABLE_2)))
    return ResultTable(
        "Side by side, as the paper's Table 2",
        ("", *(group.name for group in groups), *(f"{MARK}: {column.model}" for column in TABLE_2)),
        tuple(rows),
        summary="Top-1 in percent; mean ± standard deviation over the runs that differ in their seed alone.",
        notes=(NOT_ITS_START, "The paper's core-days were measured, not computed."),
        numbers={group.name: {name: list(values) for name, values in group.accuracies.items()} for group in groups},
    )


def as_table_6(groups: Sequence[Group]) -> ResultTable:
    """A row for each group, then those of the paper's Table 6."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TRANSFER if name not in own)]
    rows: list[tuple[str | float | None, ...]] = []
    for group in groups:
        cells = (_spread(group, name) for name in names)
        epochs = None if group.epochs is None else f"{group.epochs:.3g}"
        rows.append((f"{group.name} ({group.model})", epochs, *cells, _mean_text(group.exaflops)))
    for row in TABLE_6:
        paper = {name: f"{value:.2f}" for name, value in zip(TRANSFER, row.accuracies, strict=True)}
        rows.append((f"{MARK}: {row.model}", f"{row.epochs}", *map(paper.get, names), f"{row.exaflops:,}"))
    return ResultTable(
        "Side by side, as the paper's Table 6",
        ("model", "epochs", *names, "exaFLOPs"),
        tuple(rows),
        summary="Transfer accuracy in percent, and training compute.",
        notes=(NOT_ITS_START,),
    )


def _name(alike: Sequence[Part]) -> str:
    first = alike[0]
    if len(alike) == 1 or first.recipe is None:
        return first.name
    return f"{first.recipe.name}, {len(alike)} seeds"


def names_of(named: Sequence[tuple[str, Part]]) -> list[str]:
    """Names that tell the parts apart: those that several share also say what differs in the recipes, or the folder."""
    settings = [flat(part.recipe) for _, part in named]
    found = []
    for number, (name, part) in enumerate(named):
        others = [settings[other] for other, (same, _) in enumerate(named) if same == name and other != number]
        own = settings[number]
        differing = [key for key in own if any(other.get(key) != own[key] for other in others)]
        told = ", ".join(f"{key.rpartition('.')[2]} {own[key]}" for key in differing[:MOST_DIFFERENCES])
        found.append(name if not others else f"{name} ({told or part.place.parent.name})")
    return [name if found.count(name) == 1 else f"{name}, {number}" for number, name in enumerate(found, start=1)]


def flat(recipe: Recipe | None) -> dict[str, str]:
    """A recipe's settings by their path; the seed, the name and what is said about it are left out."""
    pending: list[tuple[str, Any]] = [] if recipe is None else list(recipe.model_dump(exclude=NAMING).items())
    found = {}
    while pending:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            pending = [(f"{path}.{key}", inner) for key, inner in value.items()] + pending
        else:
            found[path] = _last(str(value)) if path in PLACES else str(value)
    return found


def _group(name: str, parts: Sequence[Part]) -> Group:
    recipe = parts[0].recipe
    found = [accuracies_of(part) for part in parts]
    names = list(dict.fromkeys(name for one in found for name in one))
    return Group(
        name,
        _model_of(parts[0]),
        recipe.epochs if recipe else None,
        len(parts),
        {name: tuple(one[name] for one in found if name in one) for name in names},
        tuple(value for part in parts if (value := exaflops_of(part)) is not None),
    )


def _model_of(part: Part) -> str:
    if part.recipe is None:
        tested = [match[1] for table in part.tables if (match := VTAB_TITLE.match(table.title))]
        return tested[0] if tested else part.name
    return f"from {_last(part.recipe.init_from)}" if part.recipe.init_from else part.recipe.model.name


def _spread(group: Group, data: str) -> str | None:
    """Mean and deviation over the runs; a part of the runs says how many of them."""
    values = group.accuracies.get(data, ())
    if not values:
        return None
    some = "" if len(values) == group.runs else f" ({len(values)} of {group.runs})"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}{some}"


def _days(exaflops: Sequence[float]) -> str | None:
    return f"{cost.tpu_v3_core_days(statistics.fmean(exaflops), UTILISATION):.3g}" if exaflops else None


def _mean_text(values: Sequence[float]) -> str | None:
    return f"{statistics.fmean(values):.4g}" if values else None


def _last(source: str) -> str:
    """A path's last folder, which is enough to know it by and says nothing of the machine."""
    return source if "://" in source else PurePath(source).name or source
