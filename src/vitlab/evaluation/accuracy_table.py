"""The table of an accuracy, as training and `vitlab evaluate` print and store it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vitlab.evaluation.accuracy import Accuracy
from vitlab.results import Cell, Headline, ResultTable, percent

MAX_ROWS = 20  # classes; with more the table has only the row of all images, but its numbers have every class
MAX_DENSE = 100  # classes; with more the confusion matrix is stored as its nonzero entries


def accuracy_table(measured: Accuracy, data: str, classes: Sequence[str], dataset: str) -> ResultTable:
    """Top-1 accuracy on all images, and by class if there are few.

    Args:
        measured: the predictions.
        data: the images, as the title names them.
        classes: names of the model's outputs.
        dataset: the name by which reports know the data set, see `known_as`.
    """
    rows: list[list[Cell]] = [["all", measured.images, percent(measured.top(1))]]
    counts_KK, by_class = measured.confusion(), measured.per_class()
    for name, top1, images in zip(classes, by_class, counts_KK.sum(axis=1).tolist(), strict=True):
        if top1 is not None and len(classes) <= MAX_ROWS:
            rows.append([name, images, percent(top1)])
    return ResultTable(
        title=f"Accuracy on {data}",
        summary=f"{percent(measured.top(1))} of {measured.images:,} test images are classified correctly.",
        columns=["class", "images", "top-1 accuracy"],
        rows=rows,
        headline=[Headline(f"top-1 accuracy on {data}", f"{100 * measured.top(1):.2f}", "%")],
        numbers={
            "dataset": dataset,
            "images": measured.images,
            "correct": measured.correct(),
            "top1": measured.top(1),
            **({"top5": measured.top(5)} if measured.probabilities_NK.shape[1] > 5 else {}),
            "cross_entropy": measured.cross_entropy,
            "classes": list(classes),
            "per_class": by_class,
            **_confusion(counts_KK),
        },
    )


def _confusion(counts_KK: np.ndarray) -> dict[str, Any]:
    """The confusion matrix, true by predicted class; of many classes its nonzero [true, predicted, count]."""
    if len(counts_KK) <= MAX_DENSE:
        return {"confusion": counts_KK.tolist()}
    true, predicted = np.nonzero(counts_KK)
    return {"confusion_pairs": np.stack((true, predicted, counts_KK[true, predicted]), axis=1).tolist()}
