"""The prediction of every image as a file for other programs: CSV, or Parquet where pyarrow is installed.

Legend: N = images, K = classes of the model.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vitlab import files
from vitlab.data.sources import Source
from vitlab.datasets.imagenet import ObjectNetMapping
from vitlab.errors import UserError
from vitlab.evaluation import imagenet
from vitlab.evaluation.accuracy import Accuracy

SUFFIXES = (".csv", ".parquet")
# Another batch size changes sums in their last digits. Rounding hides most of that, but not all: a value half-way
# between two rounded ones may be rounded up in one run and down in another.
DECIMALS = 5

Rows = list[list[str | int | float | None]]


def check_suffix(path: Path) -> None:
    """Refuse a file name that gives no known format, before anything is computed.

    Raises:
        UserError: the name does not end in .csv or .parquet, or pyarrow is missing for the latter.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--dump {path}: write to a file that ends in .csv or .parquet")
    if path.suffix == ".parquet":
        _arrow()


def columns() -> list[str]:
    """The dump's columns; a value that is not defined for an image is left empty.

    number, image: the image's index in the data set, from 0, and its name there.
    label, class: the number and the name of its true class. With ObjectNet both are ObjectNet's own, of which there
        are 313; with ReaL they are still ImageNet's original label.
    prediction, predicted_class: the most probable class, and its name. With ObjectNet the name is that of the
        ObjectNet class which the prediction is mapped to, and the model's own where there is none.
    probability: of the prediction.
    probability_of_label: of the label. With ObjectNet the sum over its class's ImageNet classes; empty without any.
    top5: the five most probable classes, best first, as the model's class numbers.
    correct: 1 or 0, as the table counts it: whether the prediction is the label. With ObjectNet: whether it is mapped
        to the label's class, empty if ImageNet lacks that. With ReaL: whether it is one of the image's ReaL labels,
        empty if it has none.

    Names are numbers if neither the model nor the data has names.
    """
    return [
        "number", "image", "label", "class", "prediction", "predicted_class", "probability",
        "probability_of_label", "top5", "correct",
    ]  # fmt: skip


def rows(
    measured: Accuracy,
    source: Source,
    names: Sequence[str] | None,
    *,
    real: Sequence[Sequence[int]] | None = None,
    objectnet: ObjectNetMapping | None = None,
) -> Rows:
    """One row per image, in the source's order; see `columns`.

    Probabilities have five decimals, of which the last may differ between batch sizes, precisions and devices.

    Args:
        measured: the model's predictions.
        source: the images.
        names: the model's classes; None writes their numbers.
        real: ReaL's labels, if they count instead of the original ones; see `imagenet.real_accuracy`.
        objectnet: ObjectNet's mapping if that is the data; see `imagenet.objectnet_accuracy`.
    """
    labelled = _objectnet(measured, source, names, objectnet) if objectnet is not None else _plain(measured, names)
    if objectnet is None and real is not None:
        labelled = replace(labelled, correct=imagenet.real_correct(measured, source, real))
    top_N5 = np.argsort(-measured.probabilities_NK, axis=1, kind="stable")[:, :5]
    table: Rows = []
    for row, index in enumerate(measured.indices_N.tolist()):
        label, best = int(measured.labels_N[row]), int(top_N5[row, 0])
        of_label, correct = labelled.probabilities[row], labelled.correct[row]
        table.append(
            [
                index, source.key(index), label, labelled.classes[label], best, labelled.predicted[best],
                round(float(measured.probabilities_NK[row, best]), DECIMALS),
                None if of_label is None else round(of_label, DECIMALS),
                " ".join(map(str, top_N5[row].tolist())), None if correct is None else int(correct),
            ]
        )  # fmt: skip
    return table


@dataclass(frozen=True)
class _Labelled:
    """The part of the dump that depends on whose labels count.

    Attributes:
        classes: names of the labels, by number.
        predicted: names of the predictions, by the model's class number.
        probabilities: of each image's label.
        correct: whether each image is classified correctly.
    """

    classes: Sequence[str]
    predicted: Sequence[str]
    probabilities: Sequence[float | None]
    correct: Sequence[bool | None]


def _plain(measured: Accuracy, names: Sequence[str] | None) -> _Labelled:
    names = _names(measured, names)
    of_label_N = np.take_along_axis(measured.probabilities_NK, measured.labels_N[:, None], axis=1)[:, 0]
    return _Labelled(names, names, of_label_N.tolist(), (measured.predictions_N == measured.labels_N).tolist())


def _objectnet(measured: Accuracy, source: Source, names: Sequence[str] | None, mapping: ObjectNetMapping) -> _Labelled:
    class_K = imagenet.objectnet_classes(source, mapping)
    pairs = zip(class_K.tolist(), _names(measured, names), strict=True)
    predicted = [source.classes[number] if number >= 0 else name for number, name in pairs]
    probabilities: list[float | None] = []
    correct: list[bool | None] = []
    for label, best, own_K in zip(measured.labels_N, measured.predictions_N, measured.probabilities_NK, strict=True):
        of_label_K = class_K == label
        shared = bool(of_label_K.any())
        probabilities.append(float(own_K[of_label_K].sum()) if shared else None)
        correct.append(bool(of_label_K[best]) if shared else None)
    return _Labelled(source.classes, predicted, probabilities, correct)


def _names(measured: Accuracy, names: Sequence[str] | None) -> Sequence[str]:
    return names if names is not None else tuple(map(str, range(measured.probabilities_NK.shape[1])))


def write(
    measured: Accuracy,
    source: Source,
    names: Sequence[str] | None,
    path: Path,
    *,
    real: Sequence[Sequence[int]] | None = None,
    objectnet: ObjectNetMapping | None = None,
) -> None:
    """Write the dump, completely or not at all; see `rows`.

    Raises:
        UserError: the name does not end in .csv or .parquet, pyarrow is missing, or the file cannot be written.
    """
    check_suffix(path)
    table = rows(measured, source, names, real=real, objectnet=objectnet)
    data = _parquet(table) if path.suffix == ".parquet" else _csv(table)
    try:
        files.write_bytes(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --dump") from None


def _csv(table: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns())
    writer.writerows(table)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parquet(table: Rows) -> bytes:
    pyarrow, parquet = _arrow()
    values = zip(*table, strict=True) if table else [()] * len(columns())
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table(dict(zip(columns(), map(list, values), strict=True))), buffer)
    return buffer.getvalue()


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('--dump: Parquet needs pyarrow: pip install "vitlab[hub]", or write a .csv') from None
    return pyarrow, pyarrow.parquet
