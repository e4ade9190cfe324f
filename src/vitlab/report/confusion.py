"""Which classes are taken for which, as inline SVG coloured by the page's light or dark style."""

from collections.abc import Sequence

from markupsafe import Markup
from pydantic import TypeAdapter, ValidationError

from vitlab.report.charts import Chart
from vitlab.results import ResultTable

MOST_CLASSES = 20  # more would be too small to read
SIZE, LEFT, TOP = 440, 92, 20
PAIRS = 3  # confusions that are told in words
NAME_LENGTH = 13

NOTE = (
    "Rows are true classes, columns what the model said, in the same order; the darker, the larger a part of the row. "
    "Look for dark cells off the diagonal: two classes that are taken for each other."
)


def confusion_charts(tables: Sequence[ResultTable]) -> tuple[Chart, ...]:
    """A chart for each table of results that holds the counts of a confusion between a few classes."""
    found = [(table, _counts(table)) for table in tables]
    return tuple(confusion_chart(table.title, *counts) for table, counts in found if counts is not None)


def confusion_chart(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Chart:
    """Counts of true class by predicted class as a chart.

    Args:
        title: what was measured.
        classes: their names, at most `MOST_CLASSES`.
        counts: one row for each true class.
    """
    pitch = (SIZE - LEFT - 4) / len(classes)
    cell = Markup('<rect class="cell" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>')
    name = Markup('<text x="{}" y="{:.1f}" dy="0.34em" text-anchor="end">{}</text>')
    number = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" dy="0.34em" text-anchor="middle">{}</text>')
    marks = []
    for row, of_class in enumerate(counts):
        middle = TOP + (row + 0.5) * pitch
        marks.append(name.format(LEFT - 8, middle, _short(classes[row])))
        for column, count in enumerate(of_class):
            share = count / max(1, sum(of_class))
            left = LEFT + column * pitch
            marks.append(cell.format(left, TOP + row * pitch, pitch - 1, pitch - 1, share))
            if count and len(classes) <= 12:
                kind = "on-cell" if share > 0.5 else "off-cell"
                marks.append(number.format(kind, left + pitch / 2, middle, count))
    said = f"Confusion of {len(classes)} classes. {_in_words(classes, counts)}"
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        SIZE, SIZE - LEFT + TOP, said, Markup("").join(marks)
    )
    return Chart(f"{title}: what is taken for what", svg, (), f"{NOTE} {_in_words(classes, counts)}")


def _counts(table: ResultTable) -> tuple[list[str], list[list[int]]] | None:
    """Names and counts, where a table has them and they fit together."""
    try:
        classes = TypeAdapter(list[str]).validate_python(table.numbers.get("classes"))
        counts = TypeAdapter(list[list[int]]).validate_python(table.numbers.get("confusion"))
    except ValidationError:
        return None
    fits = len(counts) == len(classes) and all(len(row) == len(classes) and min(row) >= 0 for row in counts)
    return (classes, counts) if fits and 2 <= len(classes) <= MOST_CLASSES else None


def _in_words(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    errors = sorted(
        ((count, row, column) for row, of in enumerate(counts) for column, count in enumerate(of) if row != column),
        key=lambda error: (-error[0], error[1:]),
    )
    told = [f"{classes[row]} for {classes[column]} ({count})" for count, row, column in errors[:PAIRS] if count]
    return f"Most often it errs in {', '.join(told)}: the true class first." if told else "It makes no error."


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
