"""Comparison of runs in the form of the paper's Tables 2 and 6, beside the paper's numbers, which are marked."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from vitlab.recipes import cost
from vitlab.recipes.schema import Recipe
from vitlab.report.content import RunContent
from vitlab.report.cost_table import UTILISATION, exaflops_of
from vitlab.report.published import CATALOG, MARK, TABLE_2, TABLE_6, TRANSFER
from vitlab.results import ResultTable

# Results that version 0.1 stored say "part".
SPLIT_SUFFIX = re.compile(r" \((train|test|dev|dev-train|validation) (split|part)\)$")
TITLE = "Accuracy on "
VTAB_TITLE = re.compile(r"VTAB-1k of (.+), (?:linear|fine-tuned)$")
NAMING = {"seed", "name", "about"}
PATH_KEYS = {"init_from", "data.source"}
MOST_DIFFERENCES = 3
CORE_DAYS = f"TPUv3-core-days at {UTILISATION:.0%}"
COMPUTE_NOTE = (
    f"The paper's numbers are marked '{MARK}'. Compute is that of the run alone, without the pretraining of its "
    "initial weights; the paper's is that of pretraining."
)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: of the group.
        model: the model that was trained, or the weights that it started from.
        epochs: passes over the images; None if unknown.
        runs: number of runs.
        accuracies: in percent by data set, one for each run that was tested on it.
        exaflops: mean over the runs; None if unknown.
    """

    name: str
    model: str
    epochs: float | None
    runs: int
    accuracies: Mapping[str, tuple[float, ...]]
    exaflops: float | None


def comparison(runs: Sequence[RunContent]) -> tuple[ResultTable, ...]:
    """Both tables if at least two runs have an accuracy; otherwise empty."""
    groups = grouped(runs)
    if sum(group.runs for group in groups) < 2:
        return ()
    return as_table_2(groups), as_table_6(groups)


def grouped(runs: Sequence[RunContent]) -> list[Group]:
    """The runs with accuracies, grouped where only the seed differs, in the order of each group's first run.

    A run counts once, however often it is given. VTAB results lie in a folder of their own: they belong to the run that
    was tested if it is among the runs, and are a group of their own otherwise.
    """
    by_recipe: dict[str, list[RunContent]] = {}
    each_once = {run.path: run for run in runs}
    for run in _with_vtab(list(each_once.values())):
        if accuracies_of(run):
            key = str(run.path)
            if run.recipe is not None:
                key = run.recipe.model_copy(update={"seed": 0}).model_dump_json()
            by_recipe.setdefault(key, []).append(run)
    names = names_of([(_name(runs), runs[0]) for runs in by_recipe.values()])
    return [_group(name, runs) for name, runs in zip(names, by_recipe.values(), strict=True)]


def _with_vtab(runs: Sequence[RunContent]) -> list[RunContent]:
    """The runs, with folders that hold only the VTAB results of a run merged into that run."""
    found = list(runs)
    for run in runs:
        tested = [match[1] for table in run.tables if (match := VTAB_TITLE.match(table.title))]
        owners = [run for run in found if run.recipe is not None and run.name in tested]
        if run.recipe is None and len(tested) == len(run.tables) == len(owners) == 1:
            owner = owners[0]
            found[found.index(owner)] = replace(owner, tables=(*owner.tables, *run.tables))
            found.remove(run)
    return found


def accuracies_of(run: RunContent) -> dict[str, float]:
    """Top-1 accuracy in percent by data set, and the mean of VTAB, from the tables of results."""
    accuracies = {}
    for table in run.tables:
        top1, mean = table.numbers.get("top1"), table.numbers.get("mean")
        if table.title.startswith(TITLE) and isinstance(top1, int | float):
            name = str(table.numbers.get("dataset") or SPLIT_SUFFIX.sub("", table.title.removeprefix(TITLE)))
            accuracies[CATALOG.get(name.partition("=")[0], last_name(name))] = 100 * float(top1)
        elif VTAB_TITLE.match(table.title) and isinstance(mean, int | float):
            accuracies["VTAB"] = 100 * float(mean)
    return accuracies


def as_table_2(groups: Sequence[Group]) -> ResultTable:
    """A column for each group and each model of the paper's Table 2; a row for each data set, and core-days."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TABLE_2[0].accuracies if name not in own)]
    rows: list[tuple[str | None, ...]] = []
    for name in names:
        ours = [_mean_and_deviation(group, name) for group in groups]
        rows.append((name, *ours, *(column.accuracies.get(name) for column in TABLE_2)))
    used = [group.exaflops for group in groups]
    days = [None if each is None else f"{cost.tpu_v3_core_days(each, UTILISATION):.3g}" for each in used]
    rows.append((CORE_DAYS, *days, *(column.core_days for column in TABLE_2)))
    return ResultTable(
        "Comparison in the form of the paper's Table 2",
        ("", *(group.name for group in groups), *(f"{MARK}: {column.model}" for column in TABLE_2)),
        tuple(rows),
        summary="Top-1 accuracy in percent; mean ± standard deviation over runs that differ only in their seed.",
        notes=(COMPUTE_NOTE, "The paper's core-days were measured, not computed."),
        numbers={group.name: {name: list(values) for name, values in group.accuracies.items()} for group in groups},
    )


def as_table_6(groups: Sequence[Group]) -> ResultTable:
    """A row for each group, then those of the paper's Table 6."""
    own = list(dict.fromkeys(name for group in groups for name in group.accuracies))
    names = [*own, *(name for name in TRANSFER if name not in own)]
    rows: list[tuple[str | float | None, ...]] = []
    for group in groups:
        cells = (_mean_and_deviation(group, name) for name in names)
        epochs = None if group.epochs is None else f"{group.epochs:.3g}"
        exaflops = None if group.exaflops is None else f"{group.exaflops:.4g}"
        rows.append((f"{group.name} ({group.model})", epochs, *cells, exaflops))
    for row in TABLE_6:
        paper = {name: f"{value:.2f}" for name, value in zip(TRANSFER, row.accuracies, strict=True)}
        rows.append((f"{MARK}: {row.model}", f"{row.epochs}", *map(paper.get, names), f"{row.exaflops:,}"))
    return ResultTable(
        "Comparison in the form of the paper's Table 6",
        ("model", "epochs", *names, "exaFLOPs"),
        tuple(rows),
        summary="Transfer accuracy in percent, and training compute.",
        notes=(COMPUTE_NOTE,),
    )


def _name(runs: Sequence[RunContent]) -> str:
    first = runs[0]
    if len(runs) == 1 or first.recipe is None:
        return first.name
    return f"{first.recipe.name}, {len(runs)} seeds"


def names_of(named: Sequence[tuple[str, RunContent]]) -> list[str]:
    """Unique names: a name that several runs share is extended by what differs in their recipes, or by the folder."""
    settings = [flat(run.recipe) for _, run in named]
    found = []
    for number, (name, run) in enumerate(named):
        others = [settings[other] for other, (same, _) in enumerate(named) if same == name and other != number]
        own = settings[number]
        differing = [key for key in own if any(other.get(key) != own[key] for other in others)]
        differences = ", ".join(f"{key.rpartition('.')[2]} {own[key]}" for key in differing[:MOST_DIFFERENCES])
        found.append(name if not others else f"{name} ({differences or run.path.parent.name})")
    return [name if found.count(name) == 1 else f"{name}, {number}" for number, name in enumerate(found, start=1)]


def flat(recipe: Recipe | None) -> dict[str, str]:
    """A recipe's settings by their path, without the seed, the name and the description."""
    pending: list[tuple[str, Any]] = [] if recipe is None else list(recipe.model_dump(exclude=NAMING).items())
    found = {}
    while pending:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            pending = [(f"{path}.{key}", inner) for key, inner in value.items()] + pending
        else:
            found[path] = last_name(str(value)) if path in PATH_KEYS else str(value)
    return found


def _group(name: str, runs: Sequence[RunContent]) -> Group:
    recipe = runs[0].recipe
    found = [accuracies_of(run) for run in runs]
    names = list(dict.fromkeys(name for one in found for name in one))
    accuracies = {name: tuple(one[name] for one in found if name in one) for name in names}
    exaflops = [value for run in runs if (value := exaflops_of(run)) is not None]
    mean = statistics.fmean(exaflops) if exaflops else None
    return Group(name, _model_of(runs[0]), recipe.epochs if recipe else None, len(runs), accuracies, mean)


def _model_of(run: RunContent) -> str:
    if run.recipe is None:
        tested = [match[1] for table in run.tables if (match := VTAB_TITLE.match(table.title))]
        return tested[0] if tested else run.name
    return f"from {last_name(run.recipe.init_from)}" if run.recipe.init_from else run.recipe.model.name


def _mean_and_deviation(group: Group, data: str) -> str | None:
    """Mean and standard deviation over the runs, with their number if some runs lack the accuracy."""
    values = group.accuracies.get(data, ())
    if not values:
        return None
    some = "" if len(values) == group.runs else f" ({len(values)} of {group.runs})"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}{some}"


def last_name(source: str) -> str:
    """The last folder of a path, which identifies it and reveals nothing about the machine."""
    return source if "://" in source else PurePath(source).name or source
