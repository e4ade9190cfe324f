"""Throughput and largest batch size by image size (paper: Figure 12)."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from vitlab.evaluation.speed import Speed
from vitlab.report.canvas import FONT, INK, add_axes, new_figure, write

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7a", "#e69f00", "#26262b")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
FEWEST_TICKS, MOST_TICKS = 3, 8


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
            _explain(axes)
    write(figure, f"Inference on {device}"[:48], 0.2, height - 0.4, fontsize=FONT + 1)
    return figure


def _style(number: int) -> dict[str, Any]:
    """The style of a line; later ones are thinner and dashed with smaller markers, so that those below stay visible."""
    place = number % len(COLOURS)
    return {
        "color": COLOURS[place],
        "linestyle": LINES[place % len(LINES)],
        "linewidth": 3.0 - 0.22 * place,
        "marker": MARKERS[place],
        "markersize": 10.0 - 0.7 * place,
        "markerfacecolor": "none",
        "markeredgewidth": 1.4,
    }


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


def _explain(axes: Any) -> None:
    """The label of the lower axis, and the legend of the lines."""
    axes.set_xlabel("image size (pixels)", fontsize=FONT - 1, color=INK)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.45, -0.2),
        ncols=2,
        fontsize=FONT - 2,
        frameon=False,
        labelcolor=INK,
        handlelength=3,
    )
