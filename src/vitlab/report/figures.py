"""The paper's pictures of what a model has learned, of any model and images (paper: section 4.5).

Shapes: B images, H W height and width, C colours.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitlab.errors import UserError
from vitlab.inspection import attention_distance, embedding_filters, position_similarity
from vitlab.inspection.attention import patch_distances
from vitlab.inspection.embeddings import available_components
from vitlab.inspection.subject import NotApplicable, transformer
from vitlab.models.build import Model
from vitlab.report.canvas import (
    BLUE,
    FAINT,
    FONT,
    INK,
    MARGIN,
    WIDTH,
    Drawing,
    add_axes,
    add_picture,
    new_figure,
    save,
)
from vitlab.report.content import FigureEntry
from vitlab.report.examples import draw_predictions, draw_rollout
from vitlab.report.extremes import draw_extremes
from vitlab.report.heads import draw_heads
from vitlab.report.steps import draw_steps

MOST_TILES = 16  # of position similarity, along a side


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
    """Draw all pictures that apply to `model`, and write them and figures.json into the folder `out`.

    Args:
        model: any of vitlab's.
        images_BHWC: images to show, uint8, (batch, height, width, 3).
        images_BCHW: the same, normalised for the model, (batch, 3, height, width).
        names: of the images, such as file names.
        out: a folder, made where it is missing.
        labels: the images' true classes, where known.
        classes: names of the classes; those of the model where not given.

    Returns:
        One entry for each picture; where a picture makes no sense for the model, `entry.skipped` says why.

    Raises:
        UserError: images of another size than the model's, or not as many pictures, images and names.
    """
    shown_BHWC = np.asarray(images_BHWC)
    if not len(shown_BHWC) == len(images_BCHW) == len(names) or len(names) == 0:
        counts = f"{len(shown_BHWC)} pictures, {len(images_BCHW)} images, {len(names)} names"
        raise UserError(f"{counts}: give as many of each, and at least one")
    pictures: list[tuple[str, Callable[[], Drawing]]] = [
        ("Predictions", lambda: draw_predictions(model, shown_BHWC, images_BCHW, names, labels, classes)),
        ("From image to tokens", lambda: draw_steps(model, shown_BHWC[0])),
        ("Attention rollout", lambda: draw_rollout(model, shown_BHWC, images_BCHW, names)),
        ("Attention by layer and head", lambda: draw_heads(model, shown_BHWC[0], images_BCHW[:1])),
        ("Attention distance", lambda: draw_distance(model, images_BCHW)),
        ("Position similarity", lambda: draw_positions(model)),
        ("Embedding filters", lambda: draw_filters(model)),
    ]
    if labels is not None:
        known = labels
        extremes = lambda: draw_extremes(model, shown_BHWC, images_BCHW, known, classes)  # noqa: E731
        pictures.insert(1, ("Best and worst predictions", extremes))
    drawings, skipped = [], []
    for title, draw in pictures:
        try:
            drawings.append(draw())
        except NotApplicable as reason:
            skipped.append(FigureEntry(title, skipped=str(reason).removeprefix(f"{title.lower()}: ")))
    return save(drawings, skipped, out)


def draw_filters(model: Model, components: int = 28) -> Drawing:
    """The principal components of the embedding filters, seven in a row (paper: Figure 7, left).

    Raises:
        UserError: the model has no such filters.
    """
    vit = transformer(model, "embedding filters")
    count = components if vit.config.resnet else min(components, available_components(vit))
    filters_KHWC = embedding_filters(vit, count).numpy()
    height, width = vit.config.patch_hw
    columns, gap = 7, 0.06
    tile_width = (WIDTH - 2 * MARGIN - (columns - 1) * gap) / columns
    tile_height = tile_width * height / width
    rows = -(-count // columns)
    total = rows * (tile_height + gap) - gap + 2 * MARGIN
    figure = new_figure(total)
    for index, filter_HWC in enumerate(filters_KHWC):
        row, column = divmod(index, columns)
        left = MARGIN + column * (tile_width + gap)
        bottom = total - MARGIN - tile_height - row * (tile_height + gap)
        add_picture(figure, filter_HWC, left, bottom, tile_width, tile_height)
    return Drawing(
        "embedding-filters",
        "Embedding filters",
        f"The first {count} principal components of the {vit.config.hidden} filters that embed a patch of "
        f"{height}×{width} pixels, most important first, each stretched to the full range of colours. Look for smooth "
        "blobs, stripes and checks, which together can describe any fine structure inside a patch; speckle means that "
        "the filters are still close to their random start.",
        f"A grid of {count} small colour patterns, {columns} in a row.",
        figure,
        {"embedding_filters": filters_KHWC},
    )


def draw_positions(model: Model) -> Drawing:
    """The similarity of the position embeddings, a picture for each patch (paper: Figures 7, centre, and 10).

    Raises:
        UserError: the model has no position embeddings.
    """
    similarity = position_similarity(model).numpy()
    vit = transformer(model, "position similarity")
    rows, columns = vit.grid
    kept_rows, kept_columns = _spread(rows), _spread(columns)
    tiled = _tiled(similarity[np.ix_(kept_rows, kept_columns)])
    width = WIDTH - 0.75 - 0.85
    height = min(width * rows / columns, 2 * width)
    figure = new_figure(height + 0.75)
    axes = add_axes(figure, 0.65, 0.55, width, height)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    image = axes.imshow(
        tiled, cmap="viridis", vmin=float(similarity.min()), vmax=1, interpolation="nearest", aspect="auto"
    )
    _number_tiles(axes.set_xticks, kept_columns, columns)
    _number_tiles(axes.set_yticks, kept_rows, rows)
    axes.tick_params(length=0)
    axes.set_xlabel("column of the patch", fontsize=FONT, color=INK)
    axes.set_ylabel("row of the patch", fontsize=FONT, color=INK)
    _colour_bar(figure, image, 0.65 + width + 0.15, 0.55, height)
    learned = vit.config.position != "sincos2d"
    origin = "Learned" if learned else "Fixed"
    meaning = "the model has found out that an image has two dimensions" if learned else "it is how they were built"
    return Drawing(
        "position-similarity",
        "Position similarity",
        f"{origin} position embeddings compared. The small picture at each place belongs to the patch at that place of "
        "the image, and shows how alike its position embedding is to that of every patch (cosine similarity; yellow is "
        "alike). Look for a bright spot at the patch's own place that fades with distance, and for its row and column "
        f"standing out: {meaning}. Even colour means that positions are not told apart.",
        f"A grid of {len(kept_rows)} by {len(kept_columns)} small heat maps of cosine similarity, from "
        f"{similarity.min():.2f} to 1.",
        figure,
        {"position_similarity": similarity},
    )


def draw_distance(model: Model, images_BCHW: Tensor) -> Drawing:
    """The mean attention distance by depth, a dot for each head (paper: Figures 7, right, and 11).

    Raises:
        UserError: the model has no attention between all tokens.
    """
    distances_LH = attention_distance(model, images_BCHW).numpy()
    vit = transformer(model, "attention distance")
    layers, heads = distances_LH.shape
    even = patch_distances(vit).mean().item() * (vit.config.tokens - vit.prefix_tokens) / vit.config.tokens
    figure = new_figure(3.3)
    axes = add_axes(figure, 0.7, 0.6, WIDTH - 0.7 - MARGIN, 2.5)
    axes.axhline(even, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
    depths = np.repeat(np.arange(1, layers + 1), heads)
    axes.scatter(
        depths, distances_LH.ravel(), s=28, color=BLUE, alpha=0.75, linewidths=0.6, edgecolors="white", zorder=2
    )
    axes.set_xlim(0.4, layers + 0.6)
    axes.set_ylim(0, 1.15 * max(even, float(distances_LH.max())))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("depth (layer)", fontsize=FONT, color=INK)
    axes.set_ylabel("mean distance (pixels)", fontsize=FONT, color=INK)
    return Drawing(
        "attention-distance",
        "Attention distance",
        f"How far each head looks: the mean distance between a patch and what it attends to, over {len(images_BCHW)} "
        f"images of {vit.config.image_hw[0]}×{vit.config.image_hw[1]} pixels; a dot is one of the {heads} heads of a "
        "layer. The dashed line is the distance of attention spread evenly over the image. Look for heads far below "
        "the line in the first layers, which look at the neighbourhood as a small convolution does, beside heads "
        "near it, which see the whole image from the start, and for the dots rising with depth.",
        f"A scatter plot of {layers} layers with {heads} heads each; mean distances go from {distances_LH.min():.1f} "
        f"to {distances_LH.max():.1f} pixels; evenly spread attention would be at {even:.1f}.",
        figure,
        {"attention_distance": distances_LH},
    )


def _spread(count: int, most: int = MOST_TILES) -> NDArray[np.intp]:
    """At most `most` of `count` rows or columns, evenly spread from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.intp)


def _tiled(similarity_rcRC: NDArray[np.float32]) -> Any:
    """Pictures side by side with a gap of one, which stays empty."""
    rows, columns, height, width = similarity_rcRC.shape
    apart_rcRC = np.pad(similarity_rcRC, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    tiled_HW = apart_rcRC.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1))
    return np.ma.masked_invalid(tiled_HW[:-1, :-1])


def _number_tiles(set_ticks: Callable[..., Any], kept: NDArray[np.intp], size: int) -> None:
    """Number rows or columns of tiles from 1, not more than some eight of them."""
    every = -(-len(kept) // 8)
    places = [index * (size + 1) + (size - 1) / 2 for index in range(0, len(kept), every)]
    set_ticks(places, [str(number + 1) for number in kept[::every]])


def _colour_bar(figure: Any, image: Any, left: float, bottom: float, height: float) -> None:
    axes = add_axes(figure, left, bottom, 0.13, height)
    bar = figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=FONT - 2, colors=INK, length=2)
