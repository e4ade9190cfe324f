"""Sample images with the model's predictions, and its best and worst predictions.

Shapes: B images, H W height and width, C colours, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import UserError
from vitlab.inspection.subject import NotApplicable, inspecting
from vitlab.models.build import Model, class_names, probabilities
from vitlab.report.canvas import (
    BLUE,
    FONT,
    GREY,
    INK,
    MARGIN,
    QUIET,
    WIDTH,
    Drawing,
    add_axes,
    add_fitted_picture,
    new_figure,
    one_line,
    write,
)

SAMPLES, SAMPLE_SIZE, SAMPLE_GAP = 6, 1.05, 0.16
TOP_CLASSES = 3
COLUMNS, COLUMN_GAP = 4, 0.1  # of the best and worst predictions
TITLE_HEIGHT, TEXT_HEIGHT = 0.34, 0.62
BATCH_SIZE = 32


def draw_predictions(
    model: Model,
    images_BHWC: NDArray[np.uint8],
    images_BCHW: Tensor,
    names: Sequence[str],
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Drawing:
    """The first images with the most probable classes beside them.

    Args:
        model: any model of vitlab.
        images_BHWC: images to show.
        images_BCHW: the same images, normalised.
        names: of the images; shown where the true classes are not known.
        labels: the true classes, where known.
        classes: names of the classes; the model's own if not given.

    Raises:
        UserError: the model has no head, or the number of names is not its number of classes.
    """
    count = min(len(images_BHWC), SAMPLES)
    probabilities_BK = class_probabilities(model, images_BCHW[:count])
    shown_names = checked_names(model, classes, probabilities_BK.shape[1])
    total = count * (SAMPLE_SIZE + SAMPLE_GAP) - SAMPLE_GAP + 2 * MARGIN
    figure = new_figure(total)
    for index in range(count):
        bottom = total - MARGIN - SAMPLE_SIZE - index * (SAMPLE_SIZE + SAMPLE_GAP)
        add_fitted_picture(figure, images_BHWC[index], MARGIN, bottom, SAMPLE_SIZE)
        label = None if labels is None else int(labels[index])
        title = names[index] if label is None else f"true class: {shown_names[label]}"
        _add_bars(figure, probabilities_BK[index], shown_names, label, title, bottom)
    return _predictions_drawing(figure, probabilities_BK, labels, min(TOP_CLASSES, len(shown_names)))


def _predictions_drawing(
    figure: Figure, probabilities_BK: NDArray[np.float32], labels: Sequence[int] | None, shown_classes: int
) -> Drawing:
    count, known = len(probabilities_BK), ""
    if labels is not None:
        correct = int((probabilities_BK.argmax(1) == np.asarray(labels[:count])).sum())
        known = f" {correct} of these {count} are classified correctly; the bar of the true class is blue."
    return Drawing(
        "predictions",
        "Predictions",
        f"Sample images with the {shown_classes} most probable classes of each and their probabilities.{known} Look "
        "for the confidence of wrong predictions: low confidence between similar classes is reasonable, high "
        "confidence in a wrong class is not.",
        f"{count} images in a column, each with bars for its most probable classes.{known}",
        figure,
        {"probabilities": probabilities_BK},
    )


def class_probabilities(model: Model, images_BCHW: Tensor) -> NDArray[np.float32]:
    """The probabilities of all classes, (batch, classes).

    Raises:
        NotApplicable: the model has no head.
    """
    if not model.config.num_classes:
        raise NotApplicable("predictions: the model has no classification head; give a model that has one")
    device = next(model.parameters()).device
    with inspecting(model):
        batches = [probabilities(model(batch_BCHW.to(device))) for batch_BCHW in torch.split(images_BCHW, BATCH_SIZE)]
    probabilities_BK: NDArray[np.float32] = torch.cat(batches).numpy()
    return probabilities_BK


def checked_names(model: Model, classes: Sequence[str] | None, count: int) -> Sequence[str]:
    """The names of `count` classes: those given, else the model's.

    Raises:
        UserError: another number of names.
    """
    names = classes if classes is not None else class_names(model)
    if len(names) != count:
        raise UserError(f"predictions: {len(names)} class names for a model of {count} classes; give one per class")
    return names


def _add_bars(
    figure: Figure,
    probabilities_K: NDArray[np.float32],
    classes: Sequence[str],
    label: int | None,
    title: str,
    bottom: float,
) -> None:
    """Bars for the most probable classes, beside the picture whose lower edge is at `bottom` inches."""
    left = MARGIN + SAMPLE_SIZE + 0.2
    write(figure, one_line(title, 34), left, bottom + 0.93, fontsize=FONT - 1, color=QUIET)
    best = probabilities_K.argsort()[::-1][:TOP_CLASSES]
    axes: Any = add_axes(figure, left, bottom - 0.02, WIDTH - left - MARGIN, 0.86)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(TOP_CLASSES - 0.35, -0.75)
    axes.barh(range(len(best)), [1] * len(best), height=0.22, color="#e6e4de")
    colours = [BLUE if index == label else GREY for index in best]
    axes.barh(range(len(best)), probabilities_K[best], height=0.22, color=colours)
    for row, index in enumerate(best):
        style = {"fontsize": FONT - 1, "color": INK, "parse_math": False, "va": "bottom"}
        axes.text(0, row - 0.16, one_line(classes[index], 27), **style)
        axes.text(1, row - 0.16, f"{probabilities_K[index]:.1%}", ha="right", **style)


def draw_best_and_worst(
    model: Model,
    images_BHWC: NDArray[np.uint8],
    images_BCHW: Tensor,
    labels: Sequence[int],
    classes: Sequence[str] | None = None,
) -> Drawing:
    """The images whose true class got the highest probability, and those where it got the lowest.

    Args:
        model: any model of vitlab with a head.
        images_BHWC: images to show.
        images_BCHW: the same images, normalised.
        labels: the true classes.
        classes: names of the classes; the model's own if not given.

    Raises:
        UserError: the model has no head, or a label is not one of its classes.
    """
    probabilities_BK = class_probabilities(model, images_BCHW)
    names = checked_names(model, classes, probabilities_BK.shape[1])
    labels_B = np.asarray(labels, np.int64)
    if labels_B.min() < 0 or labels_B.max() >= len(names):
        raise UserError(f"predictions: labels {labels_B.min()} to {labels_B.max()} for {len(names)} classes")
    true_B = probabilities_BK[np.arange(len(labels_B)), labels_B]
    predicted_B = probabilities_BK.argmax(1)
    order_B = true_B.argsort(kind="stable")
    count = min(COLUMNS, len(order_B) // 2 or 1)
    texts = [
        (f"{one_line(names[label], 11)} {true_B[index]:.0%}", "" if label == said else f"≠ {one_line(names[said], 10)}")
        for index, (label, said) in enumerate(zip(labels_B, predicted_B, strict=True))
    ]
    rows = (
        ("highest probability of the true class", order_B[::-1][:count]),
        ("lowest probability of the true class", order_B[:count]),
    )
    figure = _rows_figure(images_BHWC, texts, rows)
    return _best_and_worst_drawing(figure, true_B, int((predicted_B == labels_B).sum()), count)


def _rows_figure(
    images_BHWC: NDArray[np.uint8], texts: Sequence[tuple[str, str]], rows: Sequence[tuple[str, NDArray[np.intp]]]
) -> Figure:
    """Titled rows of images, each with two lines of text below it."""
    tile = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * COLUMN_GAP) / COLUMNS
    row_height = TITLE_HEIGHT + tile + TEXT_HEIGHT
    total = len(rows) * row_height + MARGIN
    figure = new_figure(total)
    for row, (title, indices) in enumerate(rows):
        top = total - MARGIN / 2 - row * row_height
        write(figure, title, MARGIN, top - 0.24, color=QUIET)
        for column, index in enumerate(indices.tolist()):
            left, bottom = MARGIN + column * (tile + COLUMN_GAP), top - TITLE_HEIGHT - tile
            add_fitted_picture(figure, images_BHWC[index], left, bottom, tile)
            for line, text in enumerate(texts[index]):
                write(figure, text, left, bottom - 0.2 - 0.19 * line, fontsize=FONT - 2)
    return figure


def _best_and_worst_drawing(figure: Figure, true_B: NDArray[np.float32], correct: int, count: int) -> Drawing:
    return Drawing(
        "extremes",
        "Best and worst predictions",
        f"Of {len(true_B)} images, those whose true class got the highest and the lowest probability: the true "
        f"class, its probability, and after ≠ the predicted class if it is another one. {correct} of the "
        f"{len(true_B)} are classified correctly. Look for wrong labels and ambiguous images in the lower row; the "
        "remaining errors are the model's own.",
        f"Two rows of {count} images each with their true class and its probability.",
        figure,
        {"true_class_probability": true_B},
    )
