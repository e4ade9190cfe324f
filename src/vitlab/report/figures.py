"""The paper's figures of what a model has learned, for any model and images (paper: section 4.5).

Shapes: B images, H W height and width, C colours.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import UserError
from vitlab.inspection.subject import NotApplicable
from vitlab.models.build import Model
from vitlab.report.attention import draw_distance, draw_heads, draw_rollout
from vitlab.report.canvas import Drawing, save
from vitlab.report.content import FigureEntry
from vitlab.report.embeddings import draw_filters, draw_positions
from vitlab.report.predictions import draw_best_and_worst, draw_predictions
from vitlab.report.steps import draw_steps


def draw_inspection(
    model: Model,
    images_BHWC: Tensor | NDArray[np.uint8],
    images_BCHW: Tensor,
    names: Sequence[str],
    out: Path,
    *,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> list[FigureEntry]:
    """Draw all figures that apply to `model`, and write them and figures.json into the folder `out`.

    Args:
        model: any model of vitlab.
        images_BHWC: images to show, uint8, (batch, height, width, 3).
        images_BCHW: the same images, normalised for the model, (batch, 3, height, width).
        names: of the images, such as file names.
        out: a folder, created if it is missing.
        labels: the true classes of the images, where known.
        classes: names of the classes; the model's own if not given.

    Returns:
        One entry for each figure; where a figure does not apply to the model, `entry.skipped` says why.

    Raises:
        UserError: images of another size than the model's, or different numbers of pictures, images and names.
    """
    shown_BHWC = np.asarray(images_BHWC)
    if not len(shown_BHWC) == len(images_BCHW) == len(names) or len(names) == 0:
        counts = f"{len(shown_BHWC)} pictures, {len(images_BCHW)} images, {len(names)} names"
        raise UserError(f"{counts}: give the same number of each, and at least one")
    drawings, skipped = [], []
    for title, draw in _figures(model, shown_BHWC, images_BCHW, names, labels, classes):
        try:
            drawings.append(draw())
        except NotApplicable as reason:
            skipped.append(FigureEntry(title, skipped=str(reason).removeprefix(f"{title.lower()}: ")))
    return save(drawings, skipped, out)


def _figures(
    model: Model,
    shown_BHWC: NDArray[np.uint8],
    images_BCHW: Tensor,
    names: Sequence[str],
    labels: Sequence[int] | None,
    classes: Sequence[str] | None,
) -> list[tuple[str, Callable[[], Drawing]]]:
    """The titles of all figures, and what draws them."""
    figures: list[tuple[str, Callable[[], Drawing]]] = [
        ("Predictions", lambda: draw_predictions(model, shown_BHWC, images_BCHW, names, labels, classes)),
        ("From image to tokens", lambda: draw_steps(model, shown_BHWC[0])),
        ("Attention rollout", lambda: draw_rollout(model, shown_BHWC, images_BCHW, names)),
        ("Attention by layer and head", lambda: draw_heads(model, shown_BHWC[0], images_BCHW[:1])),
        ("Attention distance", lambda: draw_distance(model, images_BCHW)),
        ("Position similarity", lambda: draw_positions(model)),
        ("Embedding filters", lambda: draw_filters(model)),
    ]
    if labels is not None:
        draw_extremes = functools.partial(draw_best_and_worst, model, shown_BHWC, images_BCHW, labels, classes)
        figures.insert(1, ("Best and worst predictions", draw_extremes))
    return figures
