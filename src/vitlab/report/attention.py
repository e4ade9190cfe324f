"""Attention as pictures: rollout, single heads, and mean distances (paper: section 4.5).

Shapes: B images, L layers, H heads or height, W width, C colours, N tokens; r c rows and columns of patches.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from vitlab.inspection import attention_distance, attention_maps, attention_rollout
from vitlab.inspection.attention import patch_distances
from vitlab.inspection.subject import attending, transformer
from vitlab.models.build import Model
from vitlab.models.vit import VisionTransformer
from vitlab.report.canvas import (
    BLUE,
    FAINT,
    FONT,
    INK,
    MARGIN,
    QUIET,
    WIDTH,
    Drawing,
    add_axes,
    add_picture,
    evenly_spaced,
    new_figure,
    one_line,
    write,
)

ROLLOUT_IMAGES = 4
MOST_LAYERS, MOST_HEADS = 6, 6
LABEL_WIDTH = 0.34  # of the layers' numbers
HEADER_HEIGHT = 0.3


def draw_rollout(model: Model, images_BHWC: NDArray[np.uint8], images_BCHW: Tensor, names: Sequence[str]) -> Drawing:
    """The first images, their attention rollout as a heat map, and both multiplied (paper: Figures 6 and 14).

    Raises:
        UserError: the model has no attention between all tokens.
    """
    count = min(len(images_BHWC), ROLLOUT_IMAGES)
    rollout_Brc = attention_rollout(model, images_BCHW[:count]).float().cpu()
    height, width = images_BHWC.shape[1:3]
    masks_BHW = F.interpolate(rollout_Brc[:, None], (height, width), mode="bilinear")[:, 0].numpy()
    gap, label_height = 0.08, 0.3
    tile_width = (WIDTH - 2 * MARGIN - 2 * gap) / 3
    tile_height = tile_width * height / width
    total = MARGIN + HEADER_HEIGHT + count * (tile_height + label_height) + MARGIN / 2
    figure = new_figure(total)
    lefts = [MARGIN + column * (tile_width + gap) for column in range(3)]
    for left, title in zip(lefts, ("image", "attention", "image × attention"), strict=True):
        write(figure, title, left, total - MARGIN - 0.1, color=QUIET, fontsize=FONT - 1)
    for row in range(count):
        top = total - MARGIN - HEADER_HEIGHT - row * (tile_height + label_height)
        write(figure, one_line(names[row], 58), MARGIN, top - 0.02, fontsize=FONT - 1)
        for left, tile_HWC in zip(lefts, rollout_tiles(images_BHWC[row], masks_BHW[row]), strict=True):
            add_picture(figure, tile_HWC, left, top - 0.1 - tile_height, tile_width, tile_height)
    return Drawing(
        "attention-rollout",
        "Attention rollout",
        "How much each patch contributes to the output, traced back through the attention of all layers (averaged "
        "over heads, residual connections included). Middle: from lowest (dark) to highest (yellow) within each "
        "image. Right: the image, dimmed by its attention. Look for bright areas on the main object of the image; "
        "an even picture means that the model attends to all areas equally.",
        f"{count} images, each beside a heat map of attention over it and the image dimmed by that map.",
        figure,
        {"attention_rollout": rollout_Brc.numpy()},
    )


def rollout_tiles(image_HWC: NDArray[np.uint8], mask_HW: NDArray[np.float32]) -> tuple[Any, Any, Any]:
    """The image, the heat map over the image in grey, and the image times the mask."""
    plain_HWC = image_HWC / 255
    span = max(float(mask_HW.max() - mask_HW.min()), 1e-12)
    heat_HWC = colormaps["inferno"]((mask_HW - mask_HW.min()) / span)[..., :3]
    grey_HW1 = plain_HWC.mean(-1, keepdims=True)
    dimmed_HWC = plain_HWC * (mask_HW / max(float(mask_HW.max()), 1e-12))[..., None]
    return plain_HWC, 0.45 * grey_HW1 + 0.55 * heat_HWC, dimmed_HWC


def draw_heads(model: Model, image_HWC: NDArray[np.uint8], image_1CHW: Tensor) -> Drawing:
    """One image, and the attention over it of single heads: a row for each layer, a column for each head.

    Shown is the attention of the class token to each patch; in a model without one, the mean over all patches.

    Raises:
        UserError: the model has no attention between all tokens.
    """
    vit = attending(model, "attention by layer and head")
    layers = evenly_spaced(vit.config.layers, MOST_LAYERS)
    heads = evenly_spaced(vit.config.heads, MOST_HEADS)
    attention_LHrc = _attention_to_patches(vit, image_1CHW, layers)
    figure = _heads_figure(image_HWC, attention_LHrc[:, heads], layers, heads)
    query = "the class token attends" if vit.prefix_tokens else "all patches on average attend"
    return Drawing(
        "attention-heads",
        "Attention by layer and head",
        f"How much {query} to each patch of one image, in single heads of single layers, each scaled from zero "
        "(black) to its own maximum (bright). Look for heads that differ, for early layers that attend to edges or "
        "to the entire image, and for later layers that attend to the main object. A bright patch in an empty "
        "corner is an artefact of large models, which use such patches for internal computation.",
        f"Heat maps: {len(layers)} of {vit.config.layers} layers by {len(heads)} of {vit.config.heads} heads.",
        figure,
        {"attention_by_layer_and_head": attention_LHrc, "attention_layers": np.array(layers)},
    )


def _attention_to_patches(vit: VisionTransformer, image_1CHW: Tensor, layers: list[int]) -> NDArray[np.float32]:
    shown_LHrc = []
    for _, maps_1HNN in attention_maps(vit, image_1CHW, layers=layers):
        rows_HN = maps_1HNN[0, :, 0] if vit.prefix_tokens else maps_1HNN[0].mean(1)
        shown_LHrc.append(rows_HN[:, vit.prefix_tokens :].reshape(-1, *vit.grid).float().cpu().numpy())
    return np.stack(shown_LHrc)


def _heads_figure(
    image_HWC: NDArray[np.uint8], shown_LHrc: NDArray[np.float32], layers: list[int], heads: list[int]
) -> Figure:
    gap = 0.05
    tile = (WIDTH - 2 * MARGIN - LABEL_WIDTH - len(heads) * gap) / (len(heads) + 1)
    pitch = tile * image_HWC.shape[0] / image_HWC.shape[1] + gap
    top = MARGIN + HEADER_HEIGHT + len(layers) * pitch
    figure = new_figure(top + MARGIN)
    lefts = [MARGIN + LABEL_WIDTH + column * (tile + gap) for column in range(len(heads) + 1)]
    titles = ["image", f"head {heads[0] + 1}", *(str(head + 1) for head in heads[1:])]
    for left, title in [(MARGIN - 0.1, "layer"), *zip(lefts, titles, strict=True)]:
        write(figure, title, left, top - 0.1, fontsize=FONT - 2, color=QUIET)
    bottoms = [top - HEADER_HEIGHT - (row + 1) * pitch + gap for row in range(len(layers))]
    add_picture(figure, image_HWC, lefts[0], bottoms[0], tile, pitch - gap)
    for layer, bottom, shown_Hrc in zip(layers, bottoms, shown_LHrc, strict=True):
        write(figure, str(layer + 1), MARGIN, bottom + pitch / 2 - 0.1, fontsize=FONT - 2, color=QUIET)
        for left, shown_rc in zip(lefts[1:], shown_Hrc, strict=True):
            heat_rcC = colormaps["inferno"](shown_rc / max(float(shown_rc.max()), 1e-12))
            add_picture(figure, heat_rcC, left, bottom, tile, pitch - gap)
    return figure


def draw_distance(model: Model, images_BCHW: Tensor) -> Drawing:
    """The mean attention distance by depth, a dot for each head (paper: Figures 7, right, and 11).

    Raises:
        UserError: the model has no attention between all tokens.
    """
    distances_LH = attention_distance(model, images_BCHW).numpy()
    vit = transformer(model, "attention distance")
    heads = distances_LH.shape[1]
    uniform = patch_distances(vit).mean().item() * (vit.config.tokens - vit.prefix_tokens) / vit.config.tokens
    height, width = vit.config.image_hw
    return Drawing(
        "attention-distance",
        "Attention distance",
        f"The mean distance between a patch and the patches that it attends to, over {len(images_BCHW)} images of "
        f"{height}×{width} pixels; each dot is one of the {heads} heads of a layer. The dashed line is the distance "
        "of uniform attention. Look for heads far below the line in the first layers, which attend to the "
        "neighbourhood like a small convolution, next to heads near it, which attend to the entire image from the "
        "start, and for distances that increase with depth.",
        f"A scatter plot of {len(distances_LH)} layers with {heads} heads each; mean distances range from "
        f"{distances_LH.min():.1f} to {distances_LH.max():.1f} pixels; uniform attention would be at {uniform:.1f}.",
        _distance_figure(distances_LH, uniform),
        {"attention_distance": distances_LH},
    )


def _distance_figure(distances_LH: NDArray[np.float32], uniform: float) -> Figure:
    layers, heads = distances_LH.shape
    figure = new_figure(3.3)
    axes = add_axes(figure, 0.7, 0.6, WIDTH - 0.7 - MARGIN, 2.5)
    axes.axhline(uniform, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    depths = np.repeat(np.arange(1, layers + 1), heads)
    style = {"s": 28, "color": BLUE, "alpha": 0.75, "linewidths": 0.6, "edgecolors": "white", "zorder": 2}
    axes.scatter(depths, distances_LH.ravel(), **style)
    axes.set_xlim(0.4, layers + 0.6)
    axes.set_ylim(0, 1.15 * max(uniform, float(distances_LH.max())))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("depth (layer)", fontsize=FONT, color=INK)
    axes.set_ylabel("mean distance (pixels)", fontsize=FONT, color=INK)
    return figure
