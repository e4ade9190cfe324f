"""`vitlab fewshot MODEL... --data SOURCE`: accuracy of frozen features with a few images a class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.datasets.catalog import known_as, open_source
from vitlab.errors import UserError
from vitlab.evaluation.features import Features, check_layers, features_of, pixels_of
from vitlab.evaluation.fewshot import PENALTIES, FewShot, Probe
from vitlab.evaluation.fewshot import evaluate as evaluate_features
from vitlab.evaluation.least_squares import check_penalty
from vitlab.evaluation.probes import LOGISTIC_L2, NEIGHBOURS
from vitlab.models.build import Model
from vitlab.results import ResultTable, file_name, write_table
from vitlab.runtime import Runtime, choose

app = options.new_app()
NAMES: dict[Probe, str] = {"ridge": "least squares", "knn": "nearest neighbours", "logistic": "logistic regression"}
PIXELS = "raw pixels"
RESERVED = {PIXELS, "sweep", "settings"}  # names in the stored numbers that no model may take
L2 = 1024.0
Results = dict[str, dict[str, FewShot]]  # by data, then by features


@dataclass(frozen=True)
class Settings:
    """What a table has to say of how it was made; the defaults are the verb's.

    Attributes:
        probes: what classified.
        l2: penalty of the least squares.
        layer: the part of the model that gave the features; None for what its final linear layer sees.
        float32: whether the least squares were solved in it.
    """

    probes: Sequence[Probe] = ("ridge",)
    l2: float = L2
    layer: str | None = None
    float32: bool = False

    def as_numbers(self, seeds: int) -> dict[str, object]:
        """As they are stored; what only concerns least squares is None without them."""
        ridge = "ridge" in self.probes
        return {
            "probes": list(self.probes),
            "layer": self.layer,
            "l2": self.l2 if ridge else None,
            "dtype": ("float32" if self.float32 else "float64") if ridge else None,
            "seeds": seeds,
        }

    def words(self) -> list[str]:
        """What differs from the paper's way, in single words."""
        probes = [] if tuple(self.probes) == ("ridge",) else [*self.probes]
        return [*probes, *([self.layer] if self.layer is not None else [])]

    def title(self, start: str) -> str:
        """With what differs from the paper's way."""
        probes = [] if tuple(self.probes) == ("ridge",) else [" and ".join(NAMES[probe] for probe in self.probes)]
        return ", ".join([start, *probes, *([f"layer {self.layer}"] if self.layer is not None else [])])

    def sentence(self, seeds: int) -> str:
        """What the table shows."""
        precision = ", in float32" if self.float32 else ""
        ways: dict[Probe, str] = {
            "ridge": f"a linear classifier in closed form (least squares, l2 {self.l2:g}{precision})",
            "knn": f"the votes of their {NEIGHBOURS} nearest neighbours at most, by cosine",
            "logistic": f"a logistic regression (l2 {LOGISTIC_L2:g})",
        }
        features = "Frozen features" if self.layer is None else f"Frozen features of the layer {self.layer}"
        how = ", and by ".join(ways[probe] for probe in self.probes)
        spread = f"mean ± standard deviation over {seeds} choices" if seeds > 1 else "a single choice"
        return f"{features}, classified by {how}; {spread} of the training images, tested on all test images."


@dataclass(frozen=True)
class _Plan:
    """What is done with every model and data set."""

    shots: list[int]
    seeds: int
    settings: Settings
    sweep: bool
    cache: Path | None


@app.command()
def fewshot(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Run folders, weights files or folders.")],
    data: Annotated[
        list[str],
        typer.Option("--data", metavar="SOURCE", help="A data set's name or an image folder; again for more."),
    ],
    shots: Annotated[str, typer.Option("--shots", help="Images a class, separated by commas.")] = "1,5,10,25",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many random choices of those images.")] = 3,
    l2: Annotated[
        float | None, typer.Option("--l2", min=0.0, help="Penalty of the least squares; 1024 if not given.")
    ] = None,
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
    settings = Settings(parse_probes(probe), L2 if l2 is None else l2, layer, float32)
    given = {"--l2": l2 is not None, "--sweep": sweep, "--float32": float32}
    check_options(data, settings, [name for name, is_given in given.items() if is_given])
    plan = _Plan(parse_shots(shots), seeds, settings, sweep, cache)
    runtime = choose(device)
    named = {name: weights.load_model(model) for name, model in zip(names_of(models), models, strict=True)}
    if layer is not None:
        check_layers(named, layer, runtime)
    results: Results = {source: _on(source, named, plan, runtime) for source in data}
    table = tables_joined(results, plan.shots, plan.seeds, settings)
    show(table, as_json=as_json)
    if len(models) == 1 and (Path(models[0]) / "recipe.toml").exists():
        write_table(table, Path(models[0]) / "results" / file_name("fewshot", *settings.words(), *map(known_as, data)))


def _on(data: str, named: Mapping[str, Model], plan: _Plan, runtime: Runtime) -> dict[str, FewShot]:
    """Every model, and raw pixels, on one data set."""
    train, test = open_source(data, "train"), open_source(data, "test")
    found: dict[str, FewShot] = {}
    settings = plan.settings
    preprocessing = next(iter(named.values())).preprocessing

    def add(name: str, of_train: Features, of_test: Features) -> None:
        for probe in settings.probes:
            label = name if len(settings.probes) == 1 else f"{name}, {probe}"
            found[label] = evaluate_features(
                of_train, of_test, train.classes, plan.shots, seeds=plan.seeds, l2=settings.l2, probe=probe,
                penalties=PENALTIES if plan.sweep and probe == "ridge" else (),
                dtype=torch.float32 if settings.float32 else torch.float64,
            )  # fmt: skip

    for name, model in named.items():
        of_train, of_test = (
            features_of(model, source, model.preprocessing, runtime, layer=settings.layer, cache=plan.cache)
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
    names = last if len(set(last)) == len(last) and not RESERVED & set(last) else list(models)
    if len(set(names)) != len(names):
        raise UserError("fewshot: a model is given twice; name each once")
    for taken in RESERVED & set(names):
        raise UserError(f"fewshot: the results have an entry '{taken}' of their own; write ./{taken} for the model")
    return names


def check_options(data: Sequence[str], settings: Settings, of_ridge: Sequence[str]) -> None:
    """Refuse what would be left out silently, or measure nothing.

    Args:
        data: data sets as given.
        settings: as given.
        of_ridge: the options given that concern least squares alone.

    Raises:
        UserError: a data set is given twice, such options without least squares, or a penalty that is no number.
    """
    for name in data:
        if data.count(name) > 1:
            raise UserError(f"--data {name}: it is given twice; name each data set once")
    if of_ridge and "ridge" not in settings.probes:
        mended = ",".join(["ridge", *settings.probes])
        raise UserError(f"{of_ridge[0]} concerns least squares alone: leave it out, or write --probe {mended}")
    check_penalty(settings.l2)


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


def tables_joined(results: Results, shots: list[int], seeds: int, settings: Settings) -> ResultTable:
    """One table of all data sets, with the settings beside the numbers of each; of a single one the plain table."""
    parts = {}
    for data, found in results.items():
        part = fewshot_table(found, data, shots, seeds, settings)
        parts[data] = replace(part, numbers={**part.numbers, "settings": settings.as_numbers(seeds)})
    first = next(iter(parts.values()))
    if len(parts) == 1:
        return first
    return ResultTable(
        title=settings.title("Few-shot accuracy (%)"),
        summary=first.summary,
        columns=["data", *first.columns],
        rows=[[data, *row] for data, part in parts.items() for row in part.rows],
        notes=list(dict.fromkeys(note for part in parts.values() for note in part.notes)),
        numbers={data: part.numbers for data, part in parts.items()},
    )


def fewshot_table(
    by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int, settings: Settings = Settings()
) -> ResultTable:
    """Accuracies by kind of features and number of shots: mean and standard deviation over the seeds, if several."""
    rows = [[name, *(_cell(result, count) for count in shots)] for name, result in by_features.items()]
    numbers: dict[str, object] = {
        name: {str(count): list(result.accuracies[count]) for count in shots} for name, result in by_features.items()
    }
    swept = {name: result.sweep for name, result in by_features.items() if result.sweep}
    if swept:
        numbers["sweep"] = {
            name: {str(count): tried for count, tried in sweep.items()} for name, sweep in swept.items()
        }
    return ResultTable(
        title=settings.title(f"Few-shot accuracy on {data} (%)"),
        summary=settings.sentence(seeds),
        columns=["features", *(f"{count}-shot" for count in shots)],
        rows=rows,
        # A terminal shows no summary; a report leaves out the note that repeats it.
        notes=[settings.sentence(seeds), *_notes(by_features, data, shots, seeds)],
        numbers=numbers,
    )


def _cell(result: FewShot, shots: int) -> str:
    mean = f"{100 * result.mean(shots):.1f}"
    return f"{mean} ± {100 * result.deviation(shots):.1f}" if len(result.accuracies[shots]) > 1 else mean


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
