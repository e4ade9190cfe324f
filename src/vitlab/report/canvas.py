"""The canvas of all figures: matplotlib figures in one style, and how they are saved.

Figures have a light background of their own, so that they look the same on light and dark pages, and are narrow,
so that their text is legible at the width of a phone. Only matplotlib's objects are used, none of its global
state.
"""

import io
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitlab import files
from vitlab.report.content import FigureEntry

PANEL, INK, QUIET, FAINT = "#f6f5f1", "#26262b", "#66666c", "#a3a3a8"
BLUE, GREY = "#0072b2", "#a9a9a4"  # distinguishable with any colour vision
WIDTH = 4.8  # inches; a phone shows 1 inch as about 75 CSS pixels
MARGIN = 0.2
DPI = 200
FONT = 11
MOST_IN_JSON = 10_000  # elements of an array; larger arrays are in numbers.npz only


@dataclass(frozen=True)
class Drawing:
    """A drawn figure with its texts.

    Attributes:
        name: of the file, without its suffix.
        title: what the figure is.
        caption: what is shown and what to look for.
        alt: the figure in words.
        figure: the matplotlib figure.
        numbers: the drawn values, as arrays by name.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure
    numbers: dict[str, NDArray[Any]] = field(default_factory=dict)


def new_figure(height: float) -> Figure:
    """An empty panel, `height` inches high."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor=PANEL, layout=None)
    FigureCanvasAgg(figure)
    return figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes with subdued lines at a position in inches from the lower left corner of the panel."""
    total_width, total_height = figure.get_size_inches()
    place = (left / total_width, bottom / total_height, width / total_width, height / total_height)
    axes = figure.add_axes(place, facecolor=PANEL)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=FONT - 1, length=3, color=FAINT)
    return axes


def add_picture(figure: Figure, image: Any, left: float, bottom: float, width: float, height: float) -> None:
    """A picture without axes at a position in inches; small pictures keep their pixels sharp."""
    axes = add_axes(figure, left, bottom, width, height)
    axes.set_axis_off()
    sharp = max(image.shape[:2]) < 128
    axes.imshow(image, interpolation="nearest" if sharp else "antialiased", aspect="auto")


def add_fitted_picture(figure: Figure, image: Any, left: float, bottom: float, size: float) -> None:
    """A picture in the middle of a square at a position in inches; its longer side fills the square."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    centred_left, centred_bottom = left + (size - scale * width) / 2, bottom + (size - scale * height) / 2
    add_picture(figure, image, centred_left, centred_bottom, scale * width, scale * height)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced from the first to the last."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()]


def write(figure: Figure, text: str, left: float, bottom: float, **style: Any) -> None:
    """Text at a position in inches, drawn literally: nothing in it is a formula."""
    total_width, total_height = figure.get_size_inches()
    defaults: dict[str, Any] = {"fontsize": FONT, "color": INK, "parse_math": False} | style
    figure.text(left / total_width, bottom / total_height, text, **defaults)


def one_line(text: str, length: int) -> str:
    """Untrusted text as one line of at most `length` characters, without control characters."""
    visible = "".join(" " if unicodedata.category(letter)[0] in "ZC" else letter for letter in text)
    words = " ".join(visible.split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def save(drawings: Sequence[Drawing], skipped: Sequence[FigureEntry], out: Path) -> list[FigureEntry]:
    """Write the drawings as PNG and SVG into the folder `out`, with figures.json and their numbers beside them.

    Args:
        drawings: the figures.
        skipped: figures that do not apply, with reasons, for figures.json.
        out: a folder, created if it is missing; other files in it stay.

    Returns:
        The entries of figures.json.
    """
    entries = []
    for drawing in drawings:
        file = f"{drawing.name}.png"
        files.write_bytes(out / file, png(drawing.figure))
        files.write_bytes(out / f"{drawing.name}.svg", svg(drawing.figure))
        entries.append(FigureEntry(drawing.title, file, drawing.caption, drawing.alt))
    entries += skipped
    values = [{name: text for name, text in asdict(entry).items() if text} for entry in entries]
    files.write_json(out / "figures.json", values)
    _save_numbers({name: array for drawing in drawings for name, array in drawing.numbers.items()}, out)
    return entries


def _save_numbers(arrays: dict[str, NDArray[Any]], out: Path) -> None:
    """All arrays as numbers.npz, without pickle, and the smaller ones as numbers.json."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files.write_bytes(out / "numbers.npz", buffer.getvalue())
    small = {name: array.tolist() for name, array in arrays.items() if array.size <= MOST_IN_JSON}
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    files.write_json(out / "numbers.json", {"shapes": shapes, "arrays": small})


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    return _saved(figure, "png", {"Software": None})


def svg(figure: Figure) -> bytes:
    """The figure as an SVG with letters as outlines; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.hashsalt": "vitlab", "svg.fonttype": "path"}):
        return _saved(figure, "svg", {"Date": None, "Creator": None})


def _saved(figure: Figure, format: str, metadata: dict[str, None]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names are the user's
        figure.savefig(buffer, format=format, metadata=metadata, facecolor=PANEL)
    return buffer.getvalue()
