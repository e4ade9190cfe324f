"""Training curves: metrics.jsonl as inline SVG, sharp at any size, coloured by the page's light or dark style."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vitlab.errors import UserError

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 424, 14, 206
DOTS_UP_TO = 40  # a line with more points is drawn without dots
TITLES = {
    "images_per_second": "Throughput (images/s)",
    "data_wait": "Time spent waiting for data (share)",
    "mfu": "Model FLOPs utilisation (MFU)",
    "memory_bytes": "Peak memory (bytes)",
}
COLOURS = 4  # the page's style has as many classes line-0, line-1, ...
NOT_CURVES = frozenset({"step", "epoch", "seconds"})
MAX_POINTS = 400  # of a curve on a page


@dataclass(frozen=True)
class Series:
    """One metric over the steps of a run; steps rise, values are finite."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def last(self) -> float:
        """The value at the last step."""
        return self.values[-1]


def series_of(text: str, where: str) -> tuple[Series, ...]:
    """The curves in the text of a metrics.jsonl, in order of first appearance.

    An incomplete last line, which a crash leaves behind, is skipped; so are values that are not finite.

    Args:
        text: one JSON object per line, each with a "step".
        where: names the file in errors.

    Raises:
        UserError: a line is not an object with a step.
    """
    points: dict[str, dict[float, float]] = {}
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        values = _parse(line, f"{where}, line {number}", torn=number == len(lines))
        for name, value in values.items():
            if name not in NOT_CURVES and _is_finite(value):
                points.setdefault(name, {})[float(values["step"])] = float(value)
    return tuple(Series(name, tuple(sorted(of)), tuple(of[step] for step in sorted(of))) for name, of in points.items())


def thinned(series: Series, points: int = MAX_POINTS) -> Series:
    """The series as means over groups of neighbouring points of equal size, so that at most `points` remain."""
    group = -(-len(series.steps) // points)
    if group <= 1:
        return series
    starts = range(0, len(series.steps), group)
    steps = tuple(_mean(series.steps[start : start + group]) for start in starts)
    return Series(series.name, steps, tuple(_mean(series.values[start : start + group]) for start in starts))


def _mean(values: tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def _parse(line: str, where: str, *, torn: bool) -> Mapping[str, Any]:
    if not line.strip():
        return {}
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):  # ValueError: also of numbers with thousands of digits
        if torn:
            return {}
        raise UserError(f"{where} is not valid JSON: the file was changed after the run; correct the line") from None
    if not isinstance(values, dict) or not _is_finite(values.get("step")):
        raise UserError(f'{where} is not a JSON object with a "step": correct or remove the line')
    return values


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: what is shown.
        svg: the drawing.
        legend: number, name and last value of each line.
        note: how to read the chart, if that is not obvious.
    """

    title: str
    svg: Markup
    legend: tuple[tuple[int, str, str], ...]
    note: str = ""


@dataclass(frozen=True)
class _Axis:
    """A scale from values to the drawing's coordinates."""

    low: float
    high: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)


def charts_of(series: Sequence[Series]) -> list[Chart]:
    """The charts of a run: loss, accuracy, learning rate, throughput, and one for each other metric."""
    losses = [line for line in series if line.name.endswith("loss")]
    accuracies = [line for line in series if is_accuracy(line.name)]
    groups = [("Loss", losses), ("Accuracy", accuracies)]
    for line in series:
        if line not in losses and line not in accuracies:
            groups.append((TITLES.get(line.name, sentence_case(line.name)), [line]))
    return [line_chart(title, lines, percent=title == "Accuracy") for title, lines in groups if lines]


def is_accuracy(name: str) -> bool:
    """Whether a metric of that name is an accuracy."""
    return name.endswith(("accuracy", "top1", "top5"))


def line_chart(title: str, lines: Sequence[Series], *, percent: bool = False) -> Chart:
    """A chart of one or more series over steps.

    Args:
        title: what the vertical axis shows.
        lines: the series, each with at least one point.
        percent: whether the values are shares, to be shown in percent.
    """
    drawn = [thinned(line) for line in lines]
    values = [value for line in drawn for value in line.values]
    vertical_ticks = _ticks(*_range(values, percent=percent, from_zero=title != "Loss"))
    first, last = min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines)
    horizontal = _Axis(min(0.0, first), max(last, 1.0), LEFT, RIGHT)
    vertical = _Axis(vertical_ticks[0], vertical_ticks[-1], BOTTOM, TOP)
    marks = [
        *_grid(vertical, vertical_ticks, percent=percent),
        *_steps(horizontal),
        *(_line(number, line, horizontal, vertical, percent) for number, line in enumerate(drawn)),
    ]
    names = [_line_name(line.name) if len(lines) > 1 else "final value" for line in lines]
    ends = [number_text(line.last, percent=percent) for line in lines]
    legend = tuple((number % COLOURS, name, end) for number, (name, end) in enumerate(zip(names, ends, strict=True)))
    text = f"{title} over {_count(last)} steps: " + ", ".join(f"{name} {end}" for _, name, end in legend)
    return Chart(title, svg_of(WIDTH, HEIGHT, text, marks), legend)


def svg_of(width: int, height: int, text: str, marks: Sequence[Markup]) -> Markup:
    """A drawing of these marks, with a text for readers who cannot see it."""
    drawing = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return drawing.format(width, height, text, Markup("").join(marks))


def number_text(value: float, *, percent: bool = False) -> str:
    """A value with at most four digits, as shown beside a curve."""
    if percent:
        return f"{100 * value:.1f} %"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _range(values: Sequence[float], *, percent: bool, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if percent:
        low = max(0.0, min(low, high - 0.01))
        return low, max(high, low + 0.01)
    if low >= 0 and (from_zero or low < 0.5 * high):  # a loss that falls far is shown from zero
        low = 0.0
    return low, high


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values that enclose [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # all values are equal: they go in the middle
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _grid(axis: _Axis, ticks: Sequence[float], *, percent: bool) -> list[Markup]:
    mark = Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>'
        '<text x="{}" y="{y:.1f}" dy="0.34em" text-anchor="end">{}</text>'
    )
    texts = [f"{text} %" for text in _tick_texts([100 * tick for tick in ticks])] if percent else _tick_texts(ticks)
    return [mark.format(LEFT, RIGHT, LEFT - 8, text, y=axis.at(tick)) for tick, text in zip(ticks, texts, strict=True)]


def _tick_texts(ticks: Sequence[float]) -> list[str]:
    """The shortest texts with the same number of decimals that distinguish the ticks."""
    step = ticks[1] - ticks[0]
    notation = "f" if step >= 1e-3 and max(map(abs, ticks)) < 1e6 else "e"
    for decimals in range(17):
        texts = [f"{tick:.{decimals}{notation}}" for tick in ticks]
        if all(abs(float(text) - tick) < 1e-3 * step for text, tick in zip(texts, ticks, strict=True)):
            break
    return [_short(text, tick, step) for text, tick in zip(texts, ticks, strict=True)]


def _short(text: str, tick: float, step: float) -> str:
    """Without superfluous zeros and signs of an exponent, with commas between thousands."""
    if abs(tick) < 1e-6 * step:
        return "0"
    mantissa, _, exponent = text.partition("e")
    if exponent:
        trimmed = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{trimmed}e{int(exponent)}"
    integer, point, decimals = mantissa.partition(".")
    return f"{int(integer):,}{point}{decimals}" if integer not in ("-0", "0") else text


def _steps(axis: _Axis) -> list[Markup]:
    ticks = [tick for tick in _ticks(axis.low, axis.high) if tick <= axis.high * (1 + 1e-9)]
    mark = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
    texts = [mark.format(axis.at(tick), BOTTOM + 19, _count(tick)) for tick in ticks]
    return [*texts, mark.format((LEFT + RIGHT) / 2, BOTTOM + 38, "step")]


def _count(steps: float) -> str:
    for least, scale, unit in ((1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if steps >= least:
            return f"{steps / scale:.4g}{unit}"
    return f"{steps:,.4g}" if steps < 1000 else f"{steps:,.0f}"


def _line(number: int, line: Series, horizontal: _Axis, vertical: _Axis, percent: bool) -> Markup:
    colour = number % COLOURS
    places = [(horizontal.at(step), vertical.at(value)) for step, value in zip(line.steps, line.values, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    drawn = Markup('<polyline class="line-{}" points="{}"/>').format(colour, path)
    if len(places) > DOTS_UP_TO:
        return drawn
    dot = Markup('<circle class="line-{}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
    texts = [
        f"step {_count(step)}: {number_text(value, percent=percent)}"
        for step, value in zip(line.steps, line.values, strict=True)
    ]
    return drawn + Markup("").join(dot.format(colour, x, y, text) for (x, y), text in zip(places, texts, strict=True))


def sentence_case(name: str) -> str:
    """The name of a file, a folder or a metric, capitalised, in words."""
    spoken = _spoken(name)
    return spoken[:1].upper() + spoken[1:]


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace("top1", "top-1").replace("top5", "top-5").strip()


def _line_name(name: str) -> str:
    """The name of a metric in a legend; training metrics have no prefix in metrics.jsonl."""
    return f"train {name}" if name in ("loss", "accuracy") else _spoken(name)
