"""`vitlab fewshot MODEL... --data SOURCE`: accuracy of frozen features with a few images per class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show, store_in_run
from vitlab.datasets.catalog import known_as, open_source
from vitlab.errors import UserError
from vitlab.evaluation.features import Features, check_layers, features_of, pixels_of
from vitlab.evaluation.fewshot import L2, PENALTIES, PIXELS, RESERVED, FewShot, Probe, Results, Settings, joined_table
from vitlab.evaluation.fewshot import evaluate as evaluate_features
from vitlab.evaluation.least_squares import check_penalty
from vitlab.models.build import Model
from vitlab.results import file_name
from vitlab.runtime import Runtime, choose

app = options.new_app()


@dataclass(frozen=True)
class _Protocol:
    """What is measured of every model on every data set."""

    shots: list[int]
    seeds: int
    settings: Settings
    sweep: bool
    cache: Path | None


@app.command()
def fewshot(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Run directories, weights files or folders.")],
    data: Annotated[list[str], typer.Option(metavar="SOURCE", help="A data set's name or image folder; repeatable.")],
    shots: Annotated[str, typer.Option(help="Images per class, separated by commas.")] = "1,5,10,25",
    seeds: Annotated[int, typer.Option(min=1, help="Number of random choices of those images.")] = 3,
    l2: Annotated[float | None, typer.Option(min=0.0, help="Penalty of least squares; 1024 if not given.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Also try the penalties 2^-10 to 2^19.")] = False,
    probe: Annotated[str, typer.Option(help="Classifiers, separated by commas: ridge, knn, logistic.")] = "ridge",
    layer: Annotated[str | None, typer.Option(metavar="NAME", help="Features of this layer, such as blocks.5.")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache features in this folder.")] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Solve in float32: faster, less exact.")] = False,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Fit a classifier to frozen features of a few images per class, and test it on all test images of SOURCE."""
    settings = Settings(parse_probes(probe), L2 if l2 is None else l2, layer, float32)
    given = {"--l2": l2 is not None, "--sweep": sweep, "--float32": float32}
    check_options(data, settings, [name for name, is_given in given.items() if is_given])
    protocol = _Protocol(options.whole_numbers("--shots", shots, "1,5,10,25"), seeds, settings, sweep, cache)
    runtime = choose(device)
    loaded = {name: weights.load_model(model) for name, model in zip(names_of(models), models, strict=True)}
    if layer is not None:
        check_layers(loaded, layer, runtime)
    results: Results = {source: _on(source, loaded, protocol, runtime) for source in data}
    table = joined_table(results, protocol.shots, protocol.seeds, settings)
    show(table, as_json=as_json)
    if len(models) == 1:
        store_in_run(table, models[0], file_name("fewshot", *settings.file_words(), *map(known_as, data)))


def _on(data: str, models: Mapping[str, Model], protocol: _Protocol, runtime: Runtime) -> dict[str, FewShot]:
    """The accuracies of every model, and of raw pixels, on one data set."""
    train, test = open_source(data, "train"), open_source(data, "test")
    results: dict[str, FewShot] = {}
    settings = protocol.settings
    preprocessing = next(iter(models.values())).preprocessing

    def add(name: str, of_train: Features, of_test: Features) -> None:
        for probe in settings.probes:
            label = name if len(settings.probes) == 1 else f"{name}, {probe}"
            results[label] = evaluate_features(
                of_train, of_test, train.classes, protocol.shots, seeds=protocol.seeds, l2=settings.l2, probe=probe,
                penalties=PENALTIES if protocol.sweep and probe == "ridge" else (),
                dtype=torch.float32 if settings.float32 else torch.float64,
            )  # fmt: skip

    for name, model in models.items():
        of_train, of_test = (
            features_of(model, source, model.preprocessing, runtime, layer=settings.layer, cache=protocol.cache)
            for source in (train, test)
        )
        add(name, of_train, of_test)
    add(PIXELS, pixels_of(train, preprocessing), pixels_of(test, preprocessing))
    return results


def names_of(models: Sequence[str]) -> list[str]:
    """The models' names in a table: "model" if there is one, else their last path components, or their full paths."""
    if len(models) == 1:
        return ["model"]
    last = [Path(model).name for model in models]
    names = last if len(set(last)) == len(last) and not RESERVED & set(last) else list(models)
    if len(set(names)) != len(names):
        raise UserError("fewshot: a model is given twice; give each once")
    for taken in RESERVED & set(names):
        raise UserError(f"fewshot: '{taken}' is an entry of the results; write ./{taken} for the model")
    return names


def check_options(data: Sequence[str], settings: Settings, of_ridge: Sequence[str]) -> None:
    """Refuse options that would be ignored, and duplicates.

    Args:
        data: the given data sets.
        settings: the given settings.
        of_ridge: the given options that only apply to least squares.

    Raises:
        UserError: a data set is given twice, such options are given without least squares, or the penalty is invalid.
    """
    for name in data:
        if data.count(name) > 1:
            raise UserError(f"--data {name} is given twice; give each data set once")
    if of_ridge and "ridge" not in settings.probes:
        probes = ",".join(["ridge", *settings.probes])
        raise UserError(f"{of_ridge[0]} only applies to least squares: leave it out, or write --probe {probes}")
    check_penalty(settings.l2)


def parse_probes(text: str) -> list[Probe]:
    """The probes of "ridge,knn"; anything else is an error of the user."""
    known: dict[str, Probe] = {"ridge": "ridge", "knn": "knn", "logistic": "logistic"}
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    unknown = [word for word in words if word not in known]
    if unknown:
        raise UserError(f"--probe {text}: choose from ridge, knn and logistic, separated by commas")
    return [known[word] for word in words]
