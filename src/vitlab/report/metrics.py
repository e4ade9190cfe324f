"""metrics.jsonl as training curves."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitlab.errors import UserError

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
