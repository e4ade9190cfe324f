"""`vitlab fewshot MODEL --data SOURCE`: accuracy of frozen features with a few images a class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import ResultTable, show, store
from vitlab.data.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation.fewshot import FewShot, features_of, pixels_of
from vitlab.evaluation.fewshot import evaluate as evaluate_features
from vitlab.runtime import choose

app = options.new_app()


@app.command()
def fewshot(
    model: options.ModelArgument,
    data: options.DataOption,
    shots: Annotated[str, typer.Option("--shots", help="Images a class, separated by commas.")] = "1,5,10,25",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many random choices of those images.")] = 3,
    l2: Annotated[float, typer.Option("--l2", min=0.0, help="Penalty of the least squares.")] = 1024.0,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Freeze MODEL, fit a linear classifier to a few images a class, and test it on all test images of SOURCE."""
    counts = parse_shots(shots)
    loaded, runtime = weights.load_model(model), choose(device)
    train, test = open_source(data, "train"), open_source(data, "test")
    preprocessing = loaded.preprocessing
    by_features = {
        "model": evaluate_features(
            features_of(loaded, train, preprocessing, runtime),
            features_of(loaded, test, preprocessing, runtime),
            train.classes, counts, seeds=seeds, l2=l2,
        ),
        "raw pixels": evaluate_features(
            pixels_of(train, preprocessing), pixels_of(test, preprocessing), train.classes, counts, seeds=seeds, l2=l2
        ),
    }  # fmt: skip
    table = fewshot_table(by_features, data, counts, seeds)
    if (Path(model) / "recipe.toml").exists():
        store(table, Path(model) / "results" / "fewshot.json")
    show(table, as_json=as_json)


def parse_shots(text: str) -> list[int]:
    """The numbers of "1,5,10"; anything else is the user's mistake."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--shots {text}: write whole numbers separated by commas, such as 1,5,10,25")
    return sorted({int(word) for word in words})


def fewshot_table(by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int) -> ResultTable:
    """Accuracies by kind of features and number of shots: mean and standard deviation over the seeds."""
    rows = [
        [name, *(f"{100 * result.mean(count):.1f} ± {100 * result.deviation(count):.1f}" for count in shots)]
        for name, result in by_features.items()
    ]
    return ResultTable(
        title=f"Few-shot accuracy on {data} (%)",
        summary=f"A linear classifier on frozen features, in closed form; mean ± standard deviation over {seeds} "
        "choices of the training images, tested on all test images.",
        columns=["features", *(f"{count}-shot" for count in shots)],
        rows=rows,
        numbers={
            name: {str(count): list(result.accuracies[count]) for count in shots}
            for name, result in by_features.items()
        },
    )
