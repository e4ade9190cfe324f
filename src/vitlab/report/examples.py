"""Sample images as pictures: what the model looks at, and what it says.

Shapes: B images, H W height and width, C colours, K classes; r c rows and columns of patches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import UserError
from vitlab.inspection import attention_rollout
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
    add_picture,
    new_figure,
    one_line,
    write,
)

ROLLOUT_IMAGES = 4
PREDICTED_IMAGES = 6
GUESSES = 3


def draw_rollout(model: Model, images_BHWC: NDArray[np.uint8], images_BCHW: Tensor, names: Sequence[str]) -> Drawing:
    """The first images, their attention rollout as a heat map, and both multiplied (paper: Figures 6 and 14).

    Raises:
        UserError: the model has no attention between all tokens.
    """
    count = min(len(images_BHWC), ROLLOUT_IMAGES)
    rollout_Brc = attention_rollout(model, images_BCHW[:count]).float().cpu()
    height, width = images_BHWC.shape[1:3]
    masks_BHW = F.interpolate(rollout_Brc[:, None], (height, width), mode="bilinear")[:, 0].numpy()
    gap, head, label = 0.08, 0.3, 0.3
    tile_width = (WIDTH - 2 * MARGIN - 2 * gap) / 3
    tile_height = tile_width * height / width
    row_height = tile_height + label
    total = MARGIN + head + count * row_height + MARGIN / 2
    figure = new_figure(total)
    for column, title in enumerate(("image", "attention", "image × attention")):
        left = MARGIN + column * (tile_width + gap)
        write(figure, title, left, total - MARGIN - 0.1, color=QUIET, fontsize=FONT - 1)
    for row in range(count):
        top = total - MARGIN - head - row * row_height
        write(figure, one_line(names[row], 58), MARGIN, top - 0.02, fontsize=FONT - 1)
        tiles = rollout_tiles(images_BHWC[row], masks_BHW[row])
        for column, tile_HWC in enumerate(tiles):
            left = MARGIN + column * (tile_width + gap)
            add_picture(figure, tile_HWC, left, top - 0.1 - tile_height, tile_width, tile_height)
    return Drawing(
        "attention-rollout",
        "Attention rollout",
        "Where the output comes from, followed back through the attention of all layers (averaged over heads, "
        "residual connections counted). Middle: from least (dark) to most (yellow) within each image. Right: the "
        "image, dimmed by the attention it gets. Look for the bright parts to lie on what the image is of; an even "
        "picture means that the model takes from everywhere alike.",
        f"{count} images, each beside a heat map of attention over it and the image dimmed by that map.",
        figure,
        {"attention_rollout": rollout_Brc.numpy()},
    )


def rollout_tiles(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.float32]) -> tuple[Any, Any, Any]:
    """The image, the heat map over its grey, and the image times the mask."""
    plain_HWC = image_HWC / 255
    spread = max(float(mask_HW.max() - mask_HW.min()), 1e-12)
    heat_HWC = colormaps["inferno"]((mask_HW - mask_HW.min()) / spread)[..., :3]
    grey_HW1 = plain_HWC.mean(-1, keepdims=True)
    dimmed_HWC = plain_HWC * (mask_HW / max(float(mask_HW.max()), 1e-12))[..., None]
    return plain_HWC, 0.45 * grey_HW1 + 0.55 * heat_HWC, dimmed_HWC


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
        model: any of vitlab's.
        images_BHWC: images to show.
        images_BCHW: the same, normalised.
        names: of the images; shown where the true classes are not known.
        labels: the true classes, where known.
        classes: names of the classes; the model's own where not given.

    Raises:
        UserError: the model has no head, or the names are not as many as its classes.
    """
    count = min(len(images_BHWC), PREDICTED_IMAGES)
    probabilities_BK = probabilities_of(model, images_BCHW[:count])
    shown_names = class_names_of(model, classes, probabilities_BK.shape[1])
    picture, gap = 1.05, 0.16
    total = count * (picture + gap) - gap + 2 * MARGIN
    figure = new_figure(total)
    right = 0
    for index in range(count):
        bottom = total - MARGIN - picture - index * (picture + gap)
        height, width = images_BHWC.shape[1:3]
        scale = picture / max(height, width)
        left = MARGIN + (picture - scale * width) / 2
        lifted = bottom + (picture - scale * height) / 2
        add_picture(figure, images_BHWC[index], left, lifted, scale * width, scale * height)
        label = None if labels is None else int(labels[index])
        right += int(probabilities_BK[index].argmax()) == label
        said = names[index] if label is None else f"true class: {shown_names[label]}"
        _guesses(figure, probabilities_BK[index], shown_names, label, said, bottom)
    known = f" {right} of these {count} are right; the bar of the true class is blue." if labels is not None else ""
    return Drawing(
        "predictions",
        "Predictions",
        f"Sample images and the {min(GUESSES, len(shown_names))} most probable classes of each, with probabilities."
        f"{known} Look for how sure the model is where it errs: close calls between like things are sound, certainty "
        "about a wrong class is not.",
        f"{count} images in a column, each with bars for its most probable classes.{known}",
        figure,
        {"probabilities": probabilities_BK},
    )


def probabilities_of(model: Model, images_BCHW: Tensor) -> NDArray[np.float32]:
    """The probabilities of all classes, (batch, classes)."""
    if not model.config.num_classes:
        raise NotApplicable("predictions: the model has no head; give one that was trained on classes")
    with inspecting(model):
        logits_BK = model(images_BCHW.to(next(model.parameters()).device))
    probabilities_BK: NDArray[np.float32] = probabilities(logits_BK.detach()).numpy()
    return probabilities_BK


def class_names_of(model: Model, classes: Sequence[str] | None, count: int) -> Sequence[str]:
    """The names of `count` classes: those given, else the model's, see `vitlab.models.build.class_names`."""
    names = classes if classes is not None else class_names(model)
    if len(names) != count:
        raise UserError(f"predictions: {len(names)} class names for a model of {count} classes; give as many")
    return names


def _guesses(
    figure: Figure,
    probabilities_K: NDArray[np.float32],
    classes: Sequence[str],
    label: int | None,
    said: str,
    bottom: float,
) -> None:
    """Bars for the most probable classes, beside the picture whose lower edge is at `bottom` inches."""
    left = MARGIN + 1.05 + 0.2
    width = WIDTH - left - MARGIN
    write(figure, one_line(said, 34), left, bottom + 0.93, fontsize=FONT - 1, color=QUIET)
    best = probabilities_K.argsort()[::-1][:GUESSES]
    axes: Any = add_axes(figure, left, bottom - 0.02, width, 0.86)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(GUESSES - 0.35, -0.75)
    axes.barh(range(len(best)), [1] * len(best), height=0.22, color="#e6e4de")
    axes.barh(
        range(len(best)),
        probabilities_K[best],
        height=0.22,
        color=[BLUE if index == label else GREY for index in best],
    )
    for row, index in enumerate(best):
        style = {"fontsize": FONT - 1, "color": INK, "parse_math": False, "va": "bottom"}
        axes.text(0, row - 0.16, one_line(classes[index], 27), **style)
        axes.text(1, row - 0.16, f"{probabilities_K[index]:.1%}", ha="right", **style)
