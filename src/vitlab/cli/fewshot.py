"""`vitlab fewshot MODEL... --data SOURCE`: accuracy of frozen features with a few images a class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import ResultTable, show, store
from vitlab.data.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation.features import Features, check_layers, features_of, pixels_of
from vitlab.evaluation.fewshot import PENALTIES, FewShot, Probe
from vitlab.evaluation.fewshot import evaluate as evaluate_features
from vitlab.models.build import Model
from vitlab.runtime import Runtime, choose

app = options.new_app()
PIXELS = "raw pixels"
Results = dict[str, dict[str, FewShot]]  # by data, then by features


@dataclass(frozen=True)
class _Plan:
    """What is done with every model and data set."""

    shots: list[int]
    seeds: int
    l2: float
    probes: list[Probe]
    sweep: bool
    layer: str | None
    cache: Path | None
    dtype: torch.dtype


@app.command()
def fewshot(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Run folders, weights files or folders.")],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="SOURCE", help="A data set's name or an image folder; again for more."),
    ],
    shots: Annotated[str, typer.Option("--shots", help="Images a class, separated by commas.")] = "1,5,10,25",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many random choices of those images.")] = 3,
    l2: Annotated[float, typer.Option("--l2", min=0.0, help="Penalty of the least squares.")] = 1024.0,
    sweep: Annotated[bool, typer.Option("--sweep", help="Try the penalties 2^-10 to 2^19 as well.")] = False,
    probe: Annotated[
        str, typer.Option("--probe", help="What classifies: ridge, knn, logistic; several separated by commas.")
    ] = "ridge",
    layer: Annotated[
        str | None, typer.Option("--layer", metavar="NAME", help="Features of this part of the model, as blocks.5.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Keep features here, and look here first.")
    ] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Solve in float32: faster, less exact.")] = False,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Freeze MODEL, fit a linear classifier to a few images a class, and test it on all test images of SOURCE."""
    dtype = torch.float32 if float32 else torch.float64
    plan = _Plan(parse_shots(shots), seeds, l2, parse_probes(probe), sweep, layer, cache, dtype)
    runtime = choose(device)
    named = {name: weights.load_model(model) for name, model in zip(names_of(models), models, strict=True)}
    if layer is not None:
        check_layers(named.values(), layer, runtime)
    results: Results = {name: {} for name in data}
    for source in data:
        results[source] = _on(source, named, plan, runtime)
    table = tables_joined(results, plan.shots, plan.seeds)
    if len(models) == 1 and (Path(models[0]) / "recipe.toml").exists():
        store(table, Path(models[0]) / "results" / "fewshot.json")
    show(table, as_json=as_json)


def _on(data: str, named: Mapping[str, Model], plan: _Plan, runtime: Runtime) -> dict[str, FewShot]:
    """Every model, and raw pixels, on one data set."""
    train, test = open_source(data, "train"), open_source(data, "test")
    found: dict[str, FewShot] = {}
    preprocessing = next(iter(named.values())).preprocessing

    def add(name: str, of_train: Features, of_test: Features) -> None:
        for probe in plan.probes:
            label = name if len(plan.probes) == 1 else f"{name}, {probe}"
            found[label] = evaluate_features(
                of_train, of_test, train.classes, plan.shots, seeds=plan.seeds, l2=plan.l2, probe=probe,
                penalties=PENALTIES if plan.sweep and probe == "ridge" else (), dtype=plan.dtype,
            )  # fmt: skip

    for name, model in named.items():
        of_train, of_test = (
            features_of(model, source, model.preprocessing, runtime, layer=plan.layer, cache=plan.cache)
            for source in (train, test)
        )
        add(name, of_train, of_test)
    add(PIXELS, pixels_of(train, preprocessing), pixels_of(test, preprocessing))
    return found


def names_of(models: Sequence[str]) -> list[str]:
    """What models are called in a table: "model" where there is one, else their last names, or all of them."""
    if len(models) == 1:
        return ["model"]
    last = [Path(model).name for model in models]
    names = last if len(set(last)) == len(last) else list(models)
    if len(set(names)) != len(names):
        raise UserError("fewshot: a model is given twice; name each once")
    return names


def parse_shots(text: str) -> list[int]:
    """The numbers of "1,5,10"; anything else is the user's mistake."""
    words = [word.strip() for word in text.split(",")]
    # isdecimal alone takes the digits of every script; int refuses those with thousands of digits.
    if not all(word.isascii() and word.isdecimal() and len(word) < 10 and int(word) > 0 for word in words):
        raise UserError(f"--shots {text}: write whole numbers separated by commas, such as 1,5,10,25")
    return sorted({int(word) for word in words})


def parse_probes(text: str) -> list[Probe]:
    """The probes of "ridge,knn"; anything else is the user's mistake."""
    known: dict[str, Probe] = {"ridge": "ridge", "knn": "knn", "logistic": "logistic"}
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    unknown = [word for word in words if word not in known]
    if unknown:
        raise UserError(f"--probe {text}: choose among ridge, knn and logistic, separated by commas")
    return [known[word] for word in words]


def tables_joined(results: Results, shots: list[int], seeds: int) -> ResultTable:
    """One table of all data sets; of a single one the plain table."""
    if len(results) == 1:
        data, found = next(iter(results.items()))
        return fewshot_table(found, data, shots, seeds)
    parts = {data: fewshot_table(found, data, shots, seeds) for data, found in results.items()}
    first = next(iter(parts.values()))
    return ResultTable(
        title="Few-shot accuracy (%)",
        summary=first.summary,
        columns=["data", *first.columns],
        rows=[[data, *row] for data, part in parts.items() for row in part.rows],
        notes=list(dict.fromkeys(note for part in parts.values() for note in part.notes)),
        numbers={data: part.numbers for data, part in parts.items()},
    )


def fewshot_table(by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int) -> ResultTable:
    """Accuracies by kind of features and number of shots: mean and standard deviation over the seeds."""
    rows = [
        [name, *(f"{100 * result.mean(count):.1f} ± {100 * result.deviation(count):.1f}" for count in shots)]
        for name, result in by_features.items()
    ]
    numbers: dict[str, object] = {
        name: {str(count): list(result.accuracies[count]) for count in shots} for name, result in by_features.items()
    }
    swept = {name: result.sweep for name, result in by_features.items() if result.sweep}
    if swept:
        numbers["sweep"] = {
            name: {str(count): tried for count, tried in sweep.items()} for name, sweep in swept.items()
        }
    return ResultTable(
        title=f"Few-shot accuracy on {data} (%)",
        summary=f"A linear classifier on frozen features, in closed form; mean ± standard deviation over {seeds} "
        "choices of the training images, tested on all test images.",
        columns=["features", *(f"{count}-shot" for count in shots)],
        rows=rows,
        notes=_notes(by_features, data, shots, seeds),
        numbers=numbers,
    )


def _notes(by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int) -> list[str]:
    notes = []
    if seeds > 1:
        widest = max(result.half_width(count) for result in by_features.values() for count in shots)
        notes.append(
            f"{data}: 95 % intervals of the means (Student's t, {seeds} seeds) are ± {100 * widest:.1f} or less."
        )
    for name, result in by_features.items():
        for count, tried in result.sweep.items():
            best = max(tried, key=lambda penalty: tried[penalty])
            notes.append(
                f"{data}, {name}, {count}-shot: best penalty 2^{math.log2(best):.0f}, {100 * tried[best]:.1f} % "
                "(chosen by the test images, which flatters)."
            )
    return notes
