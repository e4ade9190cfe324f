"""The table of an accuracy, as training and `vitlab evaluate` print and store it."""

from typing import Any

import numpy as np

from vitlab.evaluation.accuracy import Accuracy
from vitlab.results import Cell, Headline, ResultTable, percent

MOST_ROWS = 20  # of classes, in the table; its numbers have them all
MOST_SQUARED = 100  # classes; of more only those pairs are stored that occur


def accuracy_table(measured: Accuracy, data: str, classes: tuple[str, ...], dataset: str) -> ResultTable:
    """Accuracy as a table: over all images, and by class where there are few.

    Args:
        measured: what was said of every image.
        data: what was measured on, in words.
        classes: names of the outputs.
        dataset: the name by which reports know the data set, see `known_as`.
    """
    rows: list[list[Cell]] = [["all", measured.images, percent(measured.top(1))]]
    counts_KK, shares = measured.confusion(), measured.per_class()
    for name, share, count in zip(classes, shares, counts_KK.sum(axis=1).tolist(), strict=True):
        if share is not None and len(classes) <= MOST_ROWS:
            rows.append([name, count, percent(share)])
    return ResultTable(
        title=f"Accuracy on {data}",
        summary=f"{percent(measured.top(1))} of {measured.images:,} test images are named rightly.",
        columns=["class", "images", "top-1"],
        rows=rows,
        headline=[Headline(f"top-1 on {data}", f"{100 * measured.top(1):.2f}", "%")],
        numbers={
            "dataset": dataset,
            "images": measured.images,
            "correct": measured.right(),
            "top1": measured.top(1),
            **({"top5": measured.top(5)} if measured.probabilities_NK.shape[1] > 5 else {}),
            "cross_entropy": measured.cross_entropy,
            "classes": list(classes),
            "per_class": shares,
            **_confusion(counts_KK),
        },
    )


def _confusion(counts_KK: np.ndarray) -> dict[str, Any]:
    """All counts of true class by predicted class, or of many classes [true, predicted, count] where it is not 0."""
    if len(counts_KK) <= MOST_SQUARED:
        return {"confusion": counts_KK.tolist()}
    trues, saids = np.nonzero(counts_KK)
    counts = counts_KK[trues, saids]
    return {"confusion_pairs": np.stack((trues, saids, counts), axis=1).tolist()}
