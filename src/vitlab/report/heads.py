"""What single heads of single layers look at (paper: section 4.5).

Shapes: H heads, N tokens, r c rows and columns of patches; H W C of images: height, width, colours.
"""

from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from vitlab.inspection import attention_maps
from vitlab.inspection.subject import attending
from vitlab.models.build import Model
from vitlab.report.canvas import FONT, MARGIN, QUIET, WIDTH, Drawing, add_picture, new_figure, write

MOST_LAYERS, MOST_HEADS = 6, 6


def draw_heads(model: Model, image_HWC: NDArray[np.uint8], image_1CHW: Tensor) -> Drawing:
    """One image, and the attention over it of single heads: a row for a layer, a column for a head.

    Shown is what the class token takes from each patch; in a model without one, what all patches take on average.

    Raises:
        UserError: the model has no attention between all tokens.
    """
    vit = attending(model, "attention by layer and head")
    layers = _spread(vit.config.layers, MOST_LAYERS)
    heads = _spread(vit.config.heads, MOST_HEADS)
    shown_LHrc = []
    for _, maps_1HNN in attention_maps(vit, image_1CHW, layers=layers):
        rows_HN = maps_1HNN[0, :, 0] if vit.prefix_tokens else maps_1HNN[0].mean(1)
        shown_LHrc.append(rows_HN[:, vit.prefix_tokens :].reshape(-1, *vit.grid).float().cpu().numpy())
    height, width = image_HWC.shape[:2]
    label, head, gap = 0.34, 0.3, 0.05
    tile = (WIDTH - 2 * MARGIN - label - len(heads) * gap) / (len(heads) + 1)
    pitch = tile * height / width + gap
    total = 2 * MARGIN + head + len(layers) * pitch
    figure = new_figure(total)
    write(figure, "layer", MARGIN - 0.1, total - MARGIN - 0.1, fontsize=FONT - 2, color=QUIET)
    write(figure, "image", MARGIN + label, total - MARGIN - 0.1, fontsize=FONT - 2, color=QUIET)
    for column, number in enumerate(heads, start=1):
        left = MARGIN + label + column * (tile + gap)
        text = f"head {number + 1}" if column == 1 else str(number + 1)
        write(figure, text, left, total - MARGIN - 0.1, fontsize=FONT - 2, color=QUIET)
    for row, (layer, shown_Hrc) in enumerate(zip(layers, shown_LHrc, strict=True)):
        bottom = total - MARGIN - head - (row + 1) * pitch + gap
        write(figure, str(layer + 1), MARGIN, bottom + pitch / 2 - 0.1, fontsize=FONT - 2, color=QUIET)
        pictures: list[Any] = [image_HWC] if row == 0 else []
        for column, picture in enumerate([*pictures, *([None] * (1 - len(pictures))), *shown_Hrc[heads]]):
            if picture is None:
                continue
            left = MARGIN + label + column * (tile + gap)
            shown = picture if column == 0 else colormaps["inferno"](picture / max(float(picture.max()), 1e-12))
            add_picture(figure, shown, left, bottom, tile, pitch - gap)
    whose = "the class token takes" if vit.prefix_tokens else "all patches on average take"
    return Drawing(
        "attention-heads",
        "Attention by layer and head",
        f"What {whose} from each patch of one image, in single heads of single layers, each from nothing (black) to "
        "its own most (bright). Look for heads that do different things, for early layers that look at edges or "
        "everywhere, and for later ones that keep to what the image is of. A bright patch in an empty corner is a "
        "store that large models make for themselves, not something seen.",
        f"Heat maps: {len(layers)} of {vit.config.layers} layers by {len(heads)} of {vit.config.heads} heads.",
        figure,
        {"attention_by_layer_and_head": np.stack(shown_LHrc), "attention_layers": np.array(layers)},
    )


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of `count`, evenly spread from the first to the last."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()]
