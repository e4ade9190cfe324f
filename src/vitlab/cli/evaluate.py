"""`vitlab evaluate MODEL --data SOURCE`: accuracy on labelled images."""

from pathlib import Path

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show, store
from vitlab.cli.training import accuracy_table
from vitlab.data.catalog import open_source
from vitlab.evaluation import accuracy
from vitlab.runtime import choose

app = options.new_app()


@app.command()
def evaluate(
    model: options.ModelArgument,
    data: options.DataOption,
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Accuracy of MODEL on the test images of SOURCE, each image counted once."""
    loaded = weights.load_model(model)
    source = open_source(data, "test")
    measured = accuracy.measure(loaded, source, loaded.preprocessing, choose(device), classes=loaded.classes)
    table = accuracy_table(measured, source.name, loaded.classes or source.classes)
    if (Path(model) / "recipe.toml").exists():
        store(table, Path(model) / "results" / "evaluate.json")
    show(table, as_json=as_json)
