"""The predictions that a model is proudest of, and those that it should be ashamed of.

Shapes: B images, H W height and width, C colours, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.report.canvas import (
    FONT,
    MARGIN,
    QUIET,
    WIDTH,
    Drawing,
    add_picture,
    new_figure,
    one_line,
    write,
)
from vitlab.report.examples import class_names_of, probabilities_of

COLUMNS = 4
AT_A_TIME = 32


def draw_extremes(
    model: Model,
    images_BHWC: NDArray[np.uint8],
    images_BCHW: Tensor,
    labels: Sequence[int],
    classes: Sequence[str] | None = None,
) -> Drawing:
    """The images whose true class was given the most probability, and those where it was given the least.

    Args:
        model: any of vitlab's, with a head.
        images_BHWC: images to show.
        images_BCHW: the same, normalised.
        labels: the true classes.
        classes: names of the classes; the model's own where not given.

    Raises:
        UserError: the model has no head, or a label that is none of its classes.
    """
    probabilities_BK = np.concatenate(
        [probabilities_of(model, part_BCHW) for part_BCHW in torch.split(images_BCHW, AT_A_TIME)]
    )
    names = class_names_of(model, classes, probabilities_BK.shape[1])
    labels_B = np.asarray(labels, np.int64)
    if labels_B.min() < 0 or labels_B.max() >= len(names):
        raise UserError(f"predictions: labels {labels_B.min()} to {labels_B.max()} for {len(names)} classes")
    own_B = probabilities_BK[np.arange(len(labels_B)), labels_B]
    order_B = own_B.argsort(kind="stable")
    count = min(COLUMNS, len(order_B) // 2 or 1)
    rows = [("surest of the truth", order_B[::-1][:count]), ("furthest from the truth", order_B[:count])]
    gap, words, head = 0.1, 0.62, 0.34
    tile = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * gap) / COLUMNS
    total = 2 * (head + tile + words) + MARGIN
    figure = new_figure(total)
    for row, (title, chosen) in enumerate(rows):
        top = total - MARGIN / 2 - row * (head + tile + words)
        write(figure, title, MARGIN, top - 0.24, color=QUIET)
        for column, index in enumerate(chosen.tolist()):
            left = MARGIN + column * (tile + gap)
            height, width = images_BHWC.shape[1:3]
            scale = tile / max(height, width)
            bottom = top - head - (tile + scale * height) / 2
            add_picture(figure, images_BHWC[index], left, bottom, scale * width, scale * height)
            guess = int(probabilities_BK[index].argmax())
            lines = [
                f"{one_line(names[labels_B[index]], 11)} {own_B[index]:.0%}",
                "" if guess == labels_B[index] else f"≠ {one_line(names[guess], 10)}",
            ]
            for line, text in enumerate(lines):
                write(figure, text, left, top - head - tile - 0.2 - 0.19 * line, fontsize=FONT - 2)
    right = int((probabilities_BK.argmax(1) == labels_B).sum())
    return Drawing(
        "extremes",
        "Best and worst predictions",
        f"Of {len(labels_B)} images, those whose true class the model gave most and least probability: the true class, "
        f"its probability, and after ≠ what the model said instead. {right} of the {len(labels_B)} are right. Look in "
        "the lower row for wrong labels and for pictures that people would argue about; errors beyond those are what "
        "the model has still to learn.",
        f"Two rows of {count} images each with their true class and its probability.",
        figure,
        {"true_class_probability": own_B},
    )
