"""What a model said of every image, as a table for other programs: CSV, or Parquet where pyarrow is installed.

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
# Sums come out otherwise in their last digits where a batch has another size. Rounding hides most of that, not all:
# what lies between two rounded values may go up once and down another time.
DECIMALS = 5

Rows = list[list[str | int | float | None]]


def check_suffix(path: Path) -> None:
    """Refuse a file whose format cannot be told from its name, before anything is computed.

    Raises:
        UserError: another ending than .csv and .parquet, or no pyarrow for the latter.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--dump {path}: write to a file that ends in .csv or .parquet")
    if path.suffix == ".parquet":
        _arrow()


def columns() -> list[str]:
    """The dump's columns; what is not defined for an image is left empty.

    number, image: its place in the data set, from 0, and its name there.
    label, class: its true class as the model numbers its classes, and that class's name. Of ObjectNet both are
        ObjectNet's own, of which there are 313; with ReaL they are still ImageNet's old label.
    prediction, predicted_class: the most probable class, and its name. Of ObjectNet the name is that of ObjectNet's
        class that the prediction counts as, and the model's own where it counts as none.
    probability: of the prediction.
    probability_of_label: of the label. Of ObjectNet the sum over its class's ImageNet classes; empty where it has none.
    top5: the five most probable classes, best first, as the model numbers them.
    right: 1 or 0 as the table counts it: whether the prediction is the label. Of ObjectNet: whether it belongs to the
        label's class, empty where ImageNet lacks that. With ReaL: whether it is one of the image's ReaL labels, empty
        where it has none.

    Names are numbers where neither the model nor the data has any.
    """
    return [
        "number", "image", "label", "class", "prediction", "predicted_class", "probability",
        "probability_of_label", "top5", "right",
    ]  # fmt: skip


def rows(
    measured: Accuracy,
    source: Source,
    names: Sequence[str] | None,
    *,
    real: Sequence[Sequence[int]] | None = None,
    objectnet: ObjectNetMapping | None = None,
) -> Rows:
    """One row an image, in the source's order; see `columns`.

    Probabilities have five decimals, of which the last may differ from one batch size, precision or device to another.

    Args:
        measured: the model's answers.
        source: the images.
        names: the model's classes; None leaves numbers.
        real: ReaL's labels, where it is these that count; see `imagenet.real_accuracy`.
        objectnet: the classes of ObjectNet, where that is the data; see `imagenet.objectnet_accuracy`.
    """
    told = _objectnet(measured, source, names, objectnet) if objectnet is not None else _plain(measured, names)
    if objectnet is None and real is not None:
        told = replace(told, rights=imagenet.real_rights(measured, source, real))
    highest_N5 = np.argsort(-measured.probabilities_NK, axis=1, kind="stable")[:, :5]
    table: Rows = []
    for place, index in enumerate(measured.indices_N.tolist()):
        label, best = int(measured.labels_N[place]), int(highest_N5[place, 0])
        own, right = told.probabilities[place], told.rights[place]
        table.append(
            [
                index, source.key(index), label, told.classes[label], best, told.predicted[best],
                round(float(measured.probabilities_NK[place, best]), DECIMALS),
                None if own is None else round(own, DECIMALS),
                " ".join(map(str, highest_N5[place].tolist())), None if right is None else int(right),
            ]
        )  # fmt: skip
    return table


@dataclass(frozen=True)
class _Told:
    """What depends on whose labels count: names of labels and predictions, and of each image how its label did."""

    classes: Sequence[str]
    predicted: Sequence[str]
    probabilities: Sequence[float | None]
    rights: Sequence[bool | None]


def _plain(measured: Accuracy, names: Sequence[str] | None) -> _Told:
    names = _names(measured, names)
    own_N = np.take_along_axis(measured.probabilities_NK, measured.labels_N[:, None], axis=1)[:, 0]
    return _Told(names, names, own_N.tolist(), (measured.predictions_N == measured.labels_N).tolist())


def _objectnet(measured: Accuracy, source: Source, names: Sequence[str] | None, mapping: ObjectNetMapping) -> _Told:
    class_K = imagenet.objectnet_classes(source, mapping)
    pairs = zip(class_K.tolist(), _names(measured, names), strict=True)
    predicted = [source.classes[number] if number >= 0 else name for number, name in pairs]
    probabilities: list[float | None] = []
    rights: list[bool | None] = []
    for label, best, own_K in zip(measured.labels_N, measured.predictions_N, measured.probabilities_NK, strict=True):
        its_K = class_K == label
        shared = bool(its_K.any())
        probabilities.append(float(own_K[its_K].sum()) if shared else None)
        rights.append(bool(its_K[best]) if shared else None)
    return _Told(source.classes, predicted, probabilities, rights)


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
    """Write the dump, whole or not at all; see `rows`.

    Raises:
        UserError: another ending than .csv and .parquet, no pyarrow, or a place that cannot be written to.
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
