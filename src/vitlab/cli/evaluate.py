"""`vitlab evaluate MODEL --data SOURCE`: accuracy on labelled images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vitlab import weights
from vitlab.cli import options
from vitlab.cli.output import show, store_in_run
from vitlab.data.sources import Bad, Source
from vitlab.datasets.catalog import known_as, open_source, split_path
from vitlab.datasets.imagenet import ObjectNetMapping, read_objectnet_mapping, read_real_labels
from vitlab.errors import UserError
from vitlab.evaluation import accuracy, dump, imagenet, uncertainty
from vitlab.evaluation.accuracy import Accuracy, accuracy_table
from vitlab.evaluation.imagenet import SubsetAccuracy
from vitlab.models.build import Model
from vitlab.results import Cell, Headline, ResultTable, file_name, percent
from vitlab.runtime import choose, process_group, raise_on_all

app = options.new_app()
INTERVAL = "95 % interval"


@app.command()
def evaluate(
    model: options.ModelArgument,
    data: options.DataOption,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 128,
    dump_file: Annotated[
        Path | None,
        typer.Option("--dump", metavar="FILE", help="Write the prediction of every image to a .csv or .parquet file."),
    ] = None,
    real: Annotated[Path | None, typer.Option(metavar="FILE", help="ReaL's real.json, for ImageNet's images.")] = None,
    bad_images: options.BadImagesOption = "refuse",
    device: options.DeviceOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Measure the accuracy of MODEL on the test images of SOURCE; torchrun distributes the work.

    Prints top-1 accuracy with its confidence interval, overall and by class, top-5 accuracy and calibration error.
    If MODEL is a run, the result is stored in it and its report shows it.
    """
    with process_group(choose(device)) as runtime:
        with raise_on_all(runtime):
            task = _prepared(model, data, dump_file, real, bad_images)
        measured = accuracy.measure(
            task.model, task.source, task.model.preprocessing, runtime, classes=task.classes, batch_size=batch_size,
            bad_images=bad_images, distributed=True,
        )  # fmt: skip
        if not runtime.is_first:
            return
    if dump_file is not None:
        dump.write(measured, task.source, task.names, dump_file, real=task.real_labels, objectnet=task.objectnet)
    table = _table(measured, task)
    show(table, as_json=as_json)
    store_in_run(table, model, file_name("evaluate", task.dataset))


@dataclass(frozen=True, eq=False)
class _Task:
    """What is evaluated.

    Attributes:
        model, source: the model, and the images.
        dataset: the name by which reports know the data set, see `known_as`.
        real_labels: ReaL's labels of ImageNet's validation images, if predictions are compared with those.
        objectnet: ObjectNet's mapping to ImageNet's classes, if that is the data.
    """

    model: Model
    source: Source
    dataset: str
    real_labels: list[list[int]] | None
    objectnet: ObjectNetMapping | None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The model's classes, to be matched with the data's; ObjectNet's labels keep their own numbers."""
        return None if self.objectnet is not None else self.model.classes

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each output of the model; numbers if neither the model nor the data has names."""
        outputs = self.model.config.num_classes
        named = self.model.classes or self.source.classes
        return named if len(named) == outputs else tuple(map(str, range(outputs)))


def _prepared(model: str, data: str, dump_file: Path | None, real: Path | None, bad_images: Bad) -> _Task:
    """Everything that is read before the first image; errors come in the order of the time they take to find."""
    if dump_file is not None:
        dump.check_suffix(dump_file)
    if real is not None and split_path(data)[0] == "objectnet":
        raise UserError("--real is for ImageNet's validation images, and the data is ObjectNet; leave it out")
    labels = read_real_labels(real) if real is not None else None
    loaded = weights.load_model(model)
    source = open_source(data, "test", bad=bad_images)
    folder = _objectnet_folder(data)
    mapping = None if folder is None else read_objectnet_mapping(folder)
    name = known_as(data)
    # ReaL is its labels; with their original labels its images are ImageNet's.
    dataset = "imagenet-real" if labels is not None else "imagenet" if name == "imagenet-real" else name
    return _Task(loaded, source, "objectnet" if mapping is not None else dataset, labels, mapping)


def _objectnet_folder(data: str) -> Path | None:
    """The folder of ObjectNet's own mapping files; None if the data is not ObjectNet."""
    name, folder = split_path(data)
    if name != "objectnet":
        return None
    if folder is None:
        raise UserError("objectnet: give its folder as objectnet=PATH; its mappings are read from there")
    inner = folder / "objectnet-1.0"
    return inner if inner.is_dir() else folder


def _table(measured: Accuracy, task: _Task) -> ResultTable:
    source = task.source
    if task.objectnet is not None:
        counted = imagenet.objectnet_accuracy(measured, source, task.objectnet)
        return _subset_table(f"Accuracy on ObjectNet ({source.name})", task.dataset, "a class of ImageNet", counted)
    if task.real_labels is not None:
        counted = imagenet.real_accuracy(measured, source, task.real_labels)
        table = _subset_table(f"Accuracy on ReaL ({source.name})", task.dataset, "a ReaL label", counted)
        original: list[Cell] = ["top-1, original labels", *_accuracy_cells(measured.correct(), measured.images)]
        return replace(table, rows=[*table.rows, original], numbers={**table.numbers, "old_top1": measured.top(1)})
    return _detailed_table(measured, source, task.names, task.dataset)


def _detailed_table(measured: Accuracy, source: Source, classes: Sequence[str], dataset: str) -> ResultTable:
    """The table of a training run, with confidence intervals, top-5 accuracy and calibration."""
    table = accuracy_table(measured, source.name, tuple(classes), dataset)
    bins = uncertainty.reliability(measured.labels_N, measured.probabilities_NK)
    error = uncertainty.expected_calibration_error(bins)
    counts_KK = measured.confusion()
    by_class = dict(zip(classes, np.diag(counts_KK).tolist(), strict=True))
    # The first row is that of all images.
    correct = [measured.correct(), *(by_class[str(row[0])] for row in table.rows[1:])]
    rows = [
        [*row, uncertainty.interval_text(count, int(row[1] or 0))]
        for row, count in zip(table.rows, correct, strict=True)
    ]
    return replace(
        table,
        columns=[*table.columns, INTERVAL],
        rows=rows,
        notes=[*table.notes, *_notes(measured, classes, counts_KK.sum(axis=1).tolist(), error)],
        numbers={
            **table.numbers,
            "interval": list(uncertainty.wilson_interval(measured.correct(), measured.images)),
            "expected_calibration_error": error,
            "reliability": [asdict(each) for each in bins],
            "left_out": measured.left_out,
        },
    )


def _notes(measured: Accuracy, classes: Sequence[str], totals_K: Sequence[int], error: float) -> list[str]:
    top5 = f"Top-5 accuracy {percent(measured.top(5))}. " if measured.probabilities_NK.shape[1] > 5 else ""
    notes = [f"{top5}Expected calibration error ({uncertainty.BINS} bins) {percent(error)}."]
    missing = [name for name, total in zip(classes, totals_K, strict=True) if not total]
    if missing:
        some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        notes.append(f"{len(missing)} of the {len(classes)} classes have no test images: {some}.")
    if measured.left_out:
        notes.append(f"{measured.left_out:,} images could not be read and were skipped.")
    return notes


def _subset_table(title: str, dataset: str, needed: str, counted: SubsetAccuracy) -> ResultTable:
    """Accuracy on the images that count, which are those that have what is `needed`."""
    rows: list[list[Cell]] = [["top-1", *_accuracy_cells(counted.correct, counted.images)]]
    numbers: dict[str, object] = {
        "dataset": dataset, "images": counted.images, "excluded": counted.excluded, "top1": counted.top1,
    }  # fmt: skip
    if counted.correct_top5 is not None:
        rows.append(["top-5", *_accuracy_cells(counted.correct_top5, counted.images)])
        numbers["top5"] = counted.correct_top5 / counted.images
    return ResultTable(
        title=title,
        summary=f"{percent(counted.top1)} of {counted.images:,} images are classified correctly.",
        columns=["metric", "images", "accuracy", INTERVAL],
        rows=rows,
        notes=[f"{counted.excluded:,} images do not count, because they do not have {needed}."],
        headline=[Headline(title, f"{100 * counted.top1:.2f}", "%")],
        numbers=numbers,
    )


def _accuracy_cells(correct: int, images: int) -> list[Cell]:
    return [images, percent(correct / images), uncertainty.interval_text(correct, images)]
