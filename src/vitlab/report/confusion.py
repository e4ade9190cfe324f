"""Confusion matrices as inline SVG, coloured by the page's light or dark style."""

from collections.abc import Sequence

from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from vitlab.report.charts import Chart, svg_of
from vitlab.results import ResultTable

MOST_CLASSES = 20  # more would be too small to read
SIZE, LEFT, TOP, BOTTOM = 440, 110, 4, 92
PAIRS = 3  # of the most frequent confusions, listed in the note
NAME_LENGTH = 13

NOTE = (
    "Rows are true classes, columns predicted classes; darker cells are a larger share of their row. "
    "Look for dark cells off the diagonal: classes that the model confuses."
)


def confusion_charts(tables: Sequence[ResultTable]) -> tuple[Chart, ...]:
    """A chart for each table of results that has a confusion matrix of at most `MOST_CLASSES` classes."""
    found = [(table, _counts(table)) for table in tables]
    return tuple(confusion_chart(table.title, *counts) for table, counts in found if counts is not None)


def confusion_chart(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    """A confusion matrix as a chart.

    Args:
        title: what was measured.
        classes: their names, at most `MOST_CLASSES`.
        counts: images by true class (rows) and predicted class (columns).
    """
    pitch = (SIZE - LEFT - 4) / len(classes)
    marks = [*_axis_labels(), *_class_labels(classes, pitch), *_cells(counts, pitch)]
    errors = _most_frequent_errors(classes, counts)
    text = f"Confusion matrix of {len(classes)} classes. {errors}"
    svg = svg_of(SIZE, SIZE - LEFT + TOP + BOTTOM, text, marks)
    return Chart(f"{title}: confusion matrix", svg, (), f"{NOTE} {errors}")


def _axis_labels() -> list[Markup]:
    middle, height = (LEFT + SIZE) / 2, SIZE - LEFT
    down = Markup('<text x="12" y="{y:.1f}" text-anchor="middle" transform="rotate(-90 12 {y:.1f})">true class</text>')
    across = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle">predicted class</text>')
    return [down.format(y=TOP + height / 2), across.format(middle, TOP + height + BOTTOM - 6)]


def _class_labels(classes: Sequence[str], pitch: float) -> list[Markup]:
    """The classes' names beside the rows and, slanted, below the columns."""
    beside = Markup('<text x="{}" y="{:.1f}" dy="0.34em" text-anchor="end">{}</text>')
    below = Markup('<text x="{x:.1f}" y="{y:.1f}" text-anchor="end" transform="rotate(-45 {x:.1f} {y:.1f})">{}</text>')
    bottom = TOP + len(classes) * pitch + 12
    rows = [beside.format(LEFT - 8, TOP + (n + 0.5) * pitch, _short(name)) for n, name in enumerate(classes)]
    columns = [below.format(_short(name), x=LEFT + (n + 0.6) * pitch, y=bottom) for n, name in enumerate(classes)]
    return [*rows, *columns]


def _cells(counts: Sequence[Sequence[int]], pitch: float) -> list[Markup]:
    """A square for each pair of classes, with its count if there are few classes."""
    cell = Markup('<rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>')
    number = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" dy="0.34em" text-anchor="middle">{}</text>')
    marks = []
    for row, of_class in enumerate(counts):
        for column, count in enumerate(of_class):
            share = count / max(1, sum(of_class))
            left, top = LEFT + column * pitch, TOP + row * pitch
            marks.append(cell.format(left, top, pitch - 1, pitch - 1, share))
            if count and len(counts) <= 12:
                kind = "on-cell" if share > 0.5 else "off-cell"
                marks.append(number.format(kind, left + pitch / 2, top + pitch / 2, count))
    return marks


def _counts(table: ResultTable) -> tuple[list[str], list[list[int]]] | None:
    """Names and counts, if a table has both and they match."""
    try:
        classes = TypeAdapter(list[str]).validate_python(table.numbers.get("classes"))
        counts = TypeAdapter(list[list[int]]).validate_python(table.numbers.get("confusion"))
    except ValidationError:
        return None
    fits = len(counts) == len(classes) and all(len(row) == len(classes) and min(row) >= 0 for row in counts)
    return (classes, counts) if fits and 2 <= len(classes) <= MOST_CLASSES else None


def _most_frequent_errors(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    errors = sorted(
        ((count, row, column) for row, of in enumerate(counts) for column, count in enumerate(of) if row != column),
        key=lambda error: (-error[0], error[1:]),
    )
    pairs = [f"{classes[row]} as {classes[column]} ({count})" for count, row, column in errors[:PAIRS] if count]
    return f"Most frequent errors: {', '.join(pairs)}." if pairs else "There are no errors."


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
