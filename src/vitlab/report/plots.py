"""Plots for --plot: speed and batch size of `vitlab bench` (paper: Figure 12), compute of `vitlab cost` (Figure 5)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from vitlab import files
from vitlab.errors import UserError
from vitlab.evaluation.speed import Speed
from vitlab.recipes import cost, zoo
from vitlab.recipes.entries import JFT
from vitlab.report.canvas import BLUE, FONT, INK, PANEL, QUIET, add_axes, new_figure, png, svg, write
from vitlab.report.published import TABLE_6, Scaling

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7a", "#e69f00", "#26262b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
FEWEST_TICKS, MOST_TICKS = 3, 8
STYLES = {"ViT": ("o", BLUE), "hybrid": ("P", "#d55e00"), "ResNet": ("s", "#7f7f7a")}
LABELS = {"ViT": "Transformer (ViT)", "hybrid": "Hybrid", "ResNet": "ResNet (BiT)"}
PANELS = (("Mean of 5 data sets", "average"), ("ImageNet", "imagenet"))


def speed_figure(measured: Sequence[Speed], device: str) -> Figure:
    """Peak throughput and the largest batch size by image size; a line for each model."""
    names = list(dict.fromkeys(speed.model for speed in measured))
    figure = new_figure(7.55 + 0.22 * -(-len(names) // 2))
    height = figure.get_size_inches()[1]
    panels = (("Throughput (images/s) at the best batch size", "peak"), ("Largest measured batch size", "largest"))
    for place, (title, what) in enumerate(panels):
        axes = add_axes(figure, 0.75, height - 3.5 - 3.35 * place, 3.85, 2.6)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(visible=True, color="#dddcd6", linewidth=0.6)
        heights: list[float] = []
        for number, name in enumerate(names):
            own = [speed for speed in measured if speed.model == name and speed.images_per_second]
            values = [speed.peak if what == "peak" else speed.largest_batch for speed in own]
            axes.plot([speed.image_size for speed in own], values, label=name, **_style(number))
            heights += values
        sizes = sorted({speed.image_size for speed in measured})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        _scale_heights(axes, heights, doubling=what == "largest")
        axes.set_title(title, fontsize=FONT, color=INK, loc="left")
        if place == 1:
            axes.set_xlabel("image size (pixels)", fontsize=FONT - 1, color=INK)
            style = {"frameon": False, "labelcolor": INK, "fontsize": FONT - 2, "ncols": 2, "handlelength": 3}
            axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), **style)
    write(figure, f"Inference on {device}"[:48], 0.2, height - 0.4, fontsize=FONT + 1)
    return figure


def _style(number: int) -> dict[str, Any]:
    """The style of a line; later ones are thinner and dashed with smaller markers, so that those below stay visible."""
    place = number % len(COLOURS)
    return {
        "color": COLOURS[place], "linestyle": LINES[place % len(LINES)], "linewidth": 3.0 - 0.22 * place,
        "marker": MARKERS[place], "markersize": 10.0 - 0.7 * place, "markerfacecolor": "none", "markeredgewidth": 1.4,
    }  # fmt: skip


def _scale_heights(axes: Any, heights: Sequence[float], *, doubling: bool) -> None:
    """Limits and ticks around the heights; powers of two if `doubling`."""
    axes.yaxis.set_minor_locator(NullLocator())
    if not heights:
        return
    low, high = min(heights), max(heights)
    margin = 2.0 if low == high else max(1.1, (high / low) ** 0.08)
    low, high = low / margin, high * margin
    powers = [2.0**power for power in range(64) if doubling and low <= 2**power <= high]
    ticks = _fewer(powers) if len(powers) >= FEWEST_TICKS else log_ticks(low, high)
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{tick:,.10g}" for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, both above 0, for a logarithmic axis of any range."""
    decades = [10.0**power for power in range(-9, 13)]
    for factors in ((1,), (1, 2, 5)):
        ticks = [factor * decade for decade in decades for factor in factors if low <= factor * decade <= high]
        if len(ticks) >= FEWEST_TICKS:
            return _fewer(ticks)
    return [float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]


def _fewer(ticks: list[float]) -> list[float]:
    return ticks[:: -(-len(ticks) // MOST_TICKS)]


def own_exaflops(row: Scaling) -> float:
    """A row's compute by this package's arithmetic."""
    return cost.exaflops(zoo.get(row.model), row.epochs, JFT)


def figure_5() -> Figure:
    """Transfer accuracy over pretraining compute, for the 18 models of Table 6."""
    figure = new_figure(7.65)
    for number, (title, measure) in enumerate(PANELS):
        axes = add_axes(figure, 0.65, 4.2 - 3.4 * number, 3.95, 2.75)
        axes.set_xscale("log")
        axes.grid(visible=True, color="#dddcd6", linewidth=0.6)
        axes.set_axisbelow(True)
        for family, (marker, colour) in STYLES.items():
            rows = [row for row in TABLE_6 if row.family == family]
            heights = [row.average if measure == "average" else row.imagenet for row in rows]
            axes.scatter(
                [own_exaflops(row) for row in rows], heights, s=42, marker=marker, color=colour,
                edgecolors=PANEL, linewidths=0.6, label=LABELS[family],
            )  # fmt: skip
        axes.set_ylabel("accuracy (%)", fontsize=FONT - 1, color=INK)
        axes.set_title(title, fontsize=FONT, color=INK, loc="left")
        if number == 0:
            axes.legend(loc="lower right", fontsize=FONT - 2, frameon=False, labelcolor=INK)
        else:
            axes.set_xlabel("pretraining compute (exaFLOPs)", fontsize=FONT - 1, color=INK)
    write(figure, "Accuracy after transfer against pretraining compute", 0.2, 7.33, fontsize=FONT + 1)
    write(figure, "accuracy: the paper's Table 6; compute: vitlab cost", 0.2, 0.08, fontsize=FONT - 3, color=QUIET)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write one figure as PNG or SVG, as the file's ending says.

    Raises:
        UserError: another ending, or a place that cannot be written to.
    """
    check_suffix(path)
    try:
        files.write_bytes(path, png(figure) if path.suffix == ".png" else svg(figure))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another file for --plot") from None


def check_suffix(path: Path) -> None:
    """Refuse a file that `save_figure` cannot write, before hours are spent on what it would show."""
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"--plot {path}: write to a file that ends in .png or .svg")
