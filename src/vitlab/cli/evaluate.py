"""`vitlab evaluate MODEL --data SOURCE`: accuracy on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show
from vitlab.cli.processes import one_voice
from vitlab.data.sources import Source
from vitlab.datasets.catalog import known_as, open_source
from vitlab.datasets.imagenet import read_objectnet_mapping, read_real_labels
from vitlab.datasets.opening import split_path
from vitlab.errors import UserError
from vitlab.evaluation import accuracy, calibration, dump, imagenet
from vitlab.evaluation.accuracy import Accuracy
from vitlab.evaluation.accuracy_table import accuracy_table
from vitlab.evaluation.imagenet import Counted
from vitlab.evaluation.intervals import wilson
from vitlab.models.build import Model, class_names
from vitlab.results import Cell, Headline, ResultTable, file_name, percent, write_table
from vitlab.runtime import raise_on_all

app = options.new_app()


@app.command()
def evaluate(
    model: options.ModelArgument,
    data: options.DataOption,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images at a time.")] = 128,
    dump_file: Annotated[
        Path | None,
        typer.Option("--dump", metavar="FILE", help="Write what was said of every image: .csv, or .parquet."),
    ] = None,
    real: Annotated[
        Path | None, typer.Option("--real", metavar="FILE", help="ReaL's real.json, for ImageNet's validation images.")
    ] = None,
    bad_images: options.BadImagesOption = "refuse",
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Accuracy of MODEL on the test images of SOURCE, each image counted once; torchrun shares the work out.

    Top-1 with its interval, top-5, by class, and calibration. Where MODEL is a run, its report has them too.
    """
    with one_voice(device) as runtime:
        with raise_on_all(runtime):
            if dump_file is not None:
                dump.check_suffix(dump_file)
            if real is not None and split_path(data)[0] == "objectnet":
                raise UserError("--real is for ImageNet's validation images, and the data is ObjectNet; leave it out")
            labels = read_real_labels(real) if real is not None else None
            loaded = weights.load_model(model)
            source = open_source(data, "test", bad=bad_images)
            folder = _objectnet_folder(data)
            mapping = None if folder is None else read_objectnet_mapping(folder)
            classes = None if mapping is not None else loaded.classes
        measured = accuracy.measure(
            loaded, source, loaded.preprocessing, runtime,
            classes=classes, batch_size=batch_size, bad_images=bad_images, shared=True,
        )  # fmt: skip
        if not runtime.is_first:
            return
    if mapping is not None:
        counted = imagenet.objectnet_accuracy(measured, source, mapping)
        dataset = "objectnet"
        table = _counted_table(f"Accuracy on ObjectNet ({source.name})", dataset, "not shared with ImageNet", counted)
    elif labels is not None:
        counted = imagenet.real_accuracy(measured, source, labels)
        dataset = "imagenet-real"
        title = f"Accuracy on ReaL ({source.name})"
        table = _counted_table(title, dataset, "without a label", counted, plain=measured)
    else:
        name = known_as(data)
        dataset = "imagenet" if name == "imagenet-real" else name  # ReaL is its labels, and these are the images' own
        table = _table(measured, source, _names(loaded, source), dataset)
    if dump_file is not None:
        dump.write(
            measured, source, _names(loaded, source), dump_file,
            real=labels, objectnet=mapping,
        )  # fmt: skip
    show(table, as_json=as_json)
    if (Path(model) / "recipe.toml").exists():
        write_table(table, Path(model) / "results" / file_name("evaluate", dataset))


def _objectnet_folder(data: str) -> Path | None:
    """The folder of ObjectNet's own mapping files, where the data is ObjectNet."""
    name, folder = split_path(data)
    if name != "objectnet":
        return None
    if folder is None:
        raise UserError("objectnet: give its folder as objectnet=PATH; its mappings are read from there")
    inner = folder / "objectnet-1.0"
    return inner if inner.is_dir() else folder


def _names(model: Model, source: Source) -> tuple[str, ...]:
    """The names of the model's outputs; those of the data's classes where the model has none and they are as many."""
    named = model.classes or source.classes
    return named if len(named) == model.config.num_classes else class_names(model)


def _table(measured: Accuracy, source: Source, classes: Sequence[str], dataset: str) -> ResultTable:
    """The run's own table, with intervals, top-5 and calibration."""
    table = accuracy_table(measured, source.name, tuple(classes), dataset)
    bins = calibration.reliability(measured.labels_N, measured.probabilities_NK)
    error = calibration.expected_calibration_error(bins)
    counts_KK = measured.confusion()
    rights_K, totals_K = np.diag(counts_KK), counts_KK.sum(axis=1)
    right = dict(zip(classes, rights_K.tolist(), strict=True))
    # The first row is that of all images.
    rights = [measured.right(), *(right[str(row[0])] for row in table.rows[1:])]
    rows: list[list[Cell]] = [
        [*row, _interval(of_row, int(row[1] or 0))] for row, of_row in zip(table.rows, rights, strict=True)
    ]
    low, high = wilson(measured.right(), measured.images)
    return replace(
        table,
        columns=[*table.columns, "95 % interval"],
        rows=rows,
        notes=[*table.notes, *_notes(measured, classes, totals_K.tolist(), error)],
        numbers={
            **table.numbers,
            "interval": [low, high],
            "expected_calibration_error": error,
            "reliability": [asdict(part) for part in bins],
            "left_out": measured.left_out,
        },
    )


def _notes(measured: Accuracy, classes: Sequence[str], totals_K: Sequence[int], error: float) -> list[str]:
    five = f"Top-5 {percent(measured.top(5))}. " if measured.probabilities_NK.shape[1] > 5 else ""
    notes = [f"{five}Calibration error (ECE, {calibration.BINS} bins) {percent(error)}."]
    missing = [name for name, total in zip(classes, totals_K, strict=True) if not total]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"No test image of {len(missing)} of the {len(classes)} classes: {some}.")
    if measured.left_out:
        notes.append(f"{measured.left_out} images could not be read and are left out.")
    return notes


def _counted_table(title: str, dataset: str, why: str, counted: Counted, plain: Accuracy | None = None) -> ResultTable:
    """An accuracy over some of the images."""
    rows: list[list[Cell]] = [
        ["top-1", counted.images, percent(counted.share), _interval(counted.right, counted.images)]
    ]
    numbers: dict[str, object] = {
        "dataset": dataset, "images": counted.images, "excluded": counted.excluded, "top1": counted.share,
    }  # fmt: skip
    if counted.right_of_five is not None:
        five = counted.right_of_five
        rows.append(["top-5", counted.images, percent(five / counted.images), _interval(five, counted.images)])
        numbers["top5"] = five / counted.images
    if plain is not None:
        rows.append(
            ["top-1 by the old labels", plain.images, percent(plain.top(1)), _interval(plain.right(), plain.images)]
        )
        numbers["old_top1"] = plain.top(1)
    return ResultTable(
        title=title,
        summary=f"{percent(counted.share)} of {counted.images:,} images are named rightly.",
        columns=["measure", "images", "accuracy", "95 % interval"],
        rows=rows,
        notes=[f"{counted.excluded:,} images are left out: {why}."],
        headline=[Headline(title, f"{100 * counted.share:.2f}", "%")],
        numbers=numbers,
    )


def _interval(right: int, images: int) -> str:
    low, high = wilson(right, images)
    return f"{100 * low:.1f} to {100 * high:.1f}"
