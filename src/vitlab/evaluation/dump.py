"""What a model said of every image, as a table for other programs: CSV, or Parquet where pyarrow is installed."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitlab import files
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.evaluation.accuracy import Accuracy

SUFFIXES = (".csv", ".parquet")
# Sums of float32 come out otherwise in the last digits where a batch has another size; the dump does not show them.
DECIMALS = 5

Rows = list[list[str | int | float]]


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
    """The dump's columns: the image's number and key, names and numbers of classes, probabilities, right or not."""
    return [
        "number", "image", "label", "class", "prediction", "predicted_class", "probability",
        "probability_of_label", "top5", "right",
    ]  # fmt: skip


def rows(measured: Accuracy, source: Source, names: Sequence[str] | None) -> Rows:
    """One row an image, in the source's order; probabilities with five decimals.

    Args:
        measured: the model's answers.
        source: the images.
        names: the model's classes; None leaves numbers.
    """
    highest_N5 = np.argsort(-measured.probabilities_NK, axis=1, kind="stable")[:, :5]
    table: Rows = []
    for place, index in enumerate(measured.indices_N.tolist()):
        label, best = int(measured.labels_N[place]), int(highest_N5[place, 0])
        probabilities_K = measured.probabilities_NK[place]
        table.append(
            [
                index, source.key(index), label, _name(names, label), best, _name(names, best),
                round(float(probabilities_K[best]), DECIMALS), round(float(probabilities_K[label]), DECIMALS),
                " ".join(map(str, highest_N5[place].tolist())), int(best == label),
            ]
        )  # fmt: skip
    return table


def write(measured: Accuracy, source: Source, names: Sequence[str] | None, path: Path) -> None:
    """Write the dump, whole or not at all.

    Raises:
        UserError: another ending than .csv and .parquet, no pyarrow, or a place that cannot be written to.
    """
    check_suffix(path)
    table = rows(measured, source, names)
    data = _parquet(table) if path.suffix == ".parquet" else _csv(table)
    try:
        files.write_bytes(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another --dump") from None


def _name(names: Sequence[str] | None, number: int) -> str:
    return names[number] if names is not None else str(number)


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
