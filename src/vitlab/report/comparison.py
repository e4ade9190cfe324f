"""Runs side by side in the form of the paper's Tables 2 and 6, with the paper's own numbers, marked as such."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from vitlab.recipes import cost
from vitlab.report.content import Part, Table
from vitlab.report.ledger import UTILISATION, exaflops_of
from vitlab.report.published import CATALOG, MARK, TABLE_2, TABLE_6, TRANSFER

PARTS = re.compile(r" \((train|test|dev|dev-train|validation) part\)$")
TITLE = "Accuracy on "
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
        accuracies: in percent by data set, one for each run.
        exaflops: of each run.
    """

    name: str
    model: str
    epochs: float | None
    accuracies: Mapping[str, tuple[float, ...]]
    exaflops: tuple[float, ...]


def comparison(parts: Sequence[Part]) -> tuple[Table, ...]:
    """Both tables, where two runs or more have a recipe and an accuracy; else none."""
    groups = grouped(parts)
    if sum(len(next(iter(group.accuracies.values()), ())) for group in groups) < 2:
        return ()
    return as_table_2(groups), as_table_6(groups)


def grouped(parts: Sequence[Part]) -> list[Group]:
    """The runs with accuracies, those that differ only in their seed together, in the order of the first of each."""
    by_recipe: dict[str, list[Part]] = {}
    for part in parts:
        if part.recipe is not None and accuracies_of(part):
            alike = part.recipe.model_copy(update={"seed": 0})
            by_recipe.setdefault(alike.model_dump_json(), []).append(part)
    return [_group(alike) for alike in by_recipe.values()]


def accuracies_of(part: Part) -> dict[str, float]:
    """Top-1 in percent by data set, as the results tell; VTAB's mean too."""
    found = {}
    for table in part.tables:
        top1, mean = table.numbers.get("top1"), table.numbers.get("mean")
        if table.title.startswith(TITLE) and isinstance(top1, int | float):
            name = PARTS.sub("", table.title.removeprefix(TITLE))
            found[CATALOG.get(name.partition("=")[0], _last(name))] = 100 * float(top1)
        elif table.title.startswith("VTAB") and isinstance(mean, int | float):
            found["VTAB"] = 100 * float(mean)
    return found


def as_table_2(groups: Sequence[Group]) -> Table:
    """A column for each group and for each model of the paper's Table 2; a row for each data set, and core-days."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TABLE_2[0].accuracies if name not in own)]
    rows: list[tuple[str | None, ...]] = []
    for name in names:
        ours = [_spread(group.accuracies.get(name, ())) for group in groups]
        rows.append((name, *ours, *(column.accuracies.get(name) for column in TABLE_2)))
    days = [_days(group.exaflops) for group in groups]
    rows.append((CORE_DAYS, *days, *(column.core_days for column in TABLE_2)))
    return Table(
        "Side by side, as the paper's Table 2",
        ("", *(group.name for group in groups), *(f"{MARK}: {column.model}" for column in TABLE_2)),
        tuple(rows),
        summary="Top-1 in percent; mean ± standard deviation over the runs that differ in their seed alone.",
        notes=(NOT_ITS_START, "The paper's core-days were measured, not computed."),
        numbers={group.name: {name: list(values) for name, values in group.accuracies.items()} for group in groups},
    )


def as_table_6(groups: Sequence[Group]) -> Table:
    """A row for each group, then those of the paper's Table 6."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TRANSFER if name not in own)]
    rows: list[tuple[str | float | None, ...]] = []
    for group in groups:
        cells = (_spread(group.accuracies.get(name, ())) for name in names)
        epochs = None if group.epochs is None else f"{group.epochs:.3g}"
        rows.append((f"{group.name} ({group.model})", epochs, *cells, _mean_text(group.exaflops)))
    for row in TABLE_6:
        paper = {name: f"{value:.2f}" for name, value in zip(TRANSFER, row.accuracies, strict=True)}
        rows.append((f"{MARK}: {row.model}", f"{row.epochs}", *map(paper.get, names), f"{row.exaflops:,}"))
    return Table(
        "Side by side, as the paper's Table 6",
        ("model", "epochs", *names, "exaFLOPs"),
        tuple(rows),
        summary="Transfer accuracy in percent, and training compute.",
        notes=(NOT_ITS_START,),
    )


def _group(parts: Sequence[Part]) -> Group:
    first = parts[0]
    assert first.recipe is not None
    recipe = first.recipe
    found = [accuracies_of(part) for part in parts]
    names = list(dict.fromkeys(name for one in found for name in one))
    model = f"from {_last(recipe.init_from)}" if recipe.init_from else recipe.model.name
    epochs = recipe.epochs
    seeds = f", {len(parts)} seeds" if len(parts) > 1 else ""
    return Group(
        f"{first.name if len(parts) == 1 else recipe.name}{seeds}",
        model,
        epochs,
        {name: tuple(one[name] for one in found if name in one) for name in names},
        tuple(value for part in parts if (value := exaflops_of(part)) is not None),
    )


def _spread(values: Sequence[float]) -> str | None:
    if not values:
        return None
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"


def _days(exaflops: Sequence[float]) -> str | None:
    return f"{cost.tpu_v3_core_days(statistics.fmean(exaflops), UTILISATION):.3g}" if exaflops else None


def _mean_text(values: Sequence[float]) -> str | None:
    return f"{statistics.fmean(values):.4g}" if values else None


def _last(source: str) -> str:
    """A path's last folder, which is enough to know it by and says nothing of the machine."""
    return source if "://" in source else PurePath(source).name or source
