"""Embedding filters and position embeddings as pictures (paper: section 4.5).

Shapes: K components, H W height and width, C colours; r c rows and columns of patches, R C of those compared with.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitlab.inspection import embedding_filters, position_similarity
from vitlab.inspection.embeddings import available_components
from vitlab.inspection.subject import transformer
from vitlab.models.build import Model
from vitlab.report.canvas import FONT, INK, MARGIN, WIDTH, Drawing, add_axes, add_picture, evenly_spaced, new_figure

MOST_TILES = 16  # of position similarity, along a side
FILTER_COLUMNS, FILTER_GAP = 7, 0.06


def draw_filters(model: Model, components: int = 28) -> Drawing:
    """The principal components of the embedding filters, seven in a row (paper: Figure 7, left).

    Raises:
        UserError: the model has no such filters.
    """
    vit = transformer(model, "embedding filters")
    count = components if vit.config.resnet else min(components, available_components(vit))
    filters_KHWC = embedding_filters(vit, count).numpy()
    height, width = vit.config.patch_hw
    tile_width = (WIDTH - 2 * MARGIN - (FILTER_COLUMNS - 1) * FILTER_GAP) / FILTER_COLUMNS
    tile_height = tile_width * height / width
    total = -(-count // FILTER_COLUMNS) * (tile_height + FILTER_GAP) - FILTER_GAP + 2 * MARGIN
    figure = new_figure(total)
    for index, filter_HWC in enumerate(filters_KHWC):
        row, column = divmod(index, FILTER_COLUMNS)
        left = MARGIN + column * (tile_width + FILTER_GAP)
        bottom = total - MARGIN - tile_height - row * (tile_height + FILTER_GAP)
        add_picture(figure, filter_HWC, left, bottom, tile_width, tile_height)
    return Drawing(
        "embedding-filters",
        "Embedding filters",
        f"The first {count} principal components of the {vit.config.hidden} filters that embed a patch of "
        f"{height}×{width} pixels, most important first, each stretched to the full range of colours. Look for smooth "
        "blobs, stripes and checks, which together can represent fine structure inside a patch; noise means that the "
        "filters are still close to their random initialisation.",
        f"A grid of {count} small colour patterns, {FILTER_COLUMNS} in a row.",
        figure,
        {"embedding_filters": filters_KHWC},
    )


def draw_positions(model: Model) -> Drawing:
    """The similarity of the position embeddings, a picture for each patch (paper: Figures 7, centre, and 10).

    Raises:
        UserError: the model has no position embeddings.
    """
    similarity_rcRC = position_similarity(model).numpy()
    vit = transformer(model, "position similarity")
    rows, columns = (evenly_spaced(count, MOST_TILES) for count in vit.grid)
    learned = vit.config.position != "sincos2d"
    origin = "Learned" if learned else "Fixed"
    meaning = "the model has learned the two dimensions of an image" if learned else "they are constructed that way"
    return Drawing(
        "position-similarity",
        "Position similarity",
        f"{origin} position embeddings compared. The small picture at each place belongs to the patch at that place "
        "of the image, and shows the cosine similarity between its position embedding and that of every patch "
        "(yellow is similar). Look for a bright spot at the patch's own place that fades with distance, and for its "
        f"row and column standing out: {meaning}. Even colour means that the positions are not distinguished.",
        f"A grid of {len(rows)} by {len(columns)} small heat maps of cosine similarity, from "
        f"{similarity_rcRC.min():.2f} to 1.",
        _positions_figure(similarity_rcRC, rows, columns),
        {"position_similarity": similarity_rcRC},
    )


def _positions_figure(similarity_rcRC: NDArray[np.float32], rows: list[int], columns: list[int]) -> Figure:
    """Tiles for the patches in these rows and columns, with numbered axes and a colour bar."""
    grid = similarity_rcRC.shape[:2]
    width = WIDTH - 0.75 - 0.85
    height = min(width * grid[0] / grid[1], 2 * width)
    figure = new_figure(height + 0.75)
    axes = add_axes(figure, 0.65, 0.55, width, height)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    colours = {"cmap": "viridis", "vmin": float(similarity_rcRC.min()), "vmax": 1}
    tiles_HW = _tiled(similarity_rcRC[np.ix_(rows, columns)])
    image = axes.imshow(tiles_HW, interpolation="nearest", aspect="auto", **colours)
    _number_tiles(axes.set_xticks, columns, grid[1])
    _number_tiles(axes.set_yticks, rows, grid[0])
    axes.tick_params(length=0)
    axes.set_xlabel("column of the patch", fontsize=FONT, color=INK)
    axes.set_ylabel("row of the patch", fontsize=FONT, color=INK)
    bar_axes = add_axes(figure, 0.65 + width + 0.15, 0.55, 0.13, height)
    figure.colorbar(image, cax=bar_axes).outline.set_visible(False)
    bar_axes.tick_params(labelsize=FONT - 2, colors=INK, length=2)
    return figure


def _tiled(similarity_rcRC: NDArray[np.float32]) -> Any:
    """Pictures side by side with a gap of one pixel, which stays empty."""
    rows, columns, height, width = similarity_rcRC.shape
    apart_rcRC = np.pad(similarity_rcRC, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    tiled_HW = apart_rcRC.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1))
    return np.ma.masked_invalid(tiled_HW[:-1, :-1])


def _number_tiles(set_ticks: Callable[..., Any], shown: list[int], size: int) -> None:
    """Number rows or columns of tiles from 1, about eight of them at most."""
    every = -(-len(shown) // 8)
    places = [index * (size + 1) + (size - 1) / 2 for index in range(0, len(shown), every)]
    set_ticks(places, [str(number + 1) for number in shown[::every]])
