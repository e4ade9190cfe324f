"""Few-shot results as tables, with the settings that they were measured with (paper: section 4.1)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vitlab.evaluation.fewshot import FewShot, Probe
from vitlab.evaluation.probes import LOGISTIC_L2, NEIGHBOURS
from vitlab.results import ResultTable

NAMES: dict[Probe, str] = {"ridge": "least squares", "knn": "nearest neighbours", "logistic": "logistic regression"}
PIXELS = "raw pixels"
RESERVED = {PIXELS, "sweep", "settings"}  # entries of the stored numbers, which no model may be called
L2 = 1024.0
Results = dict[str, dict[str, FewShot]]  # by data, then by features


@dataclass(frozen=True)
class Settings:
    """How features are taken and classified; the defaults are the paper's.

    Attributes:
        probes: the classifiers.
        l2: penalty of least squares.
        layer: the module of the model that gives the features; None for the input of its final linear layer.
        float32: whether least squares is solved in float32.
    """

    probes: Sequence[Probe] = ("ridge",)
    l2: float = L2
    layer: str | None = None
    float32: bool = False

    def as_numbers(self, seeds: int) -> dict[str, object]:
        """The settings as they are stored; those of least squares are None without it."""
        ridge = "ridge" in self.probes
        return {
            "probes": list(self.probes),
            "layer": self.layer,
            "l2": self.l2 if ridge else None,
            "dtype": ("float32" if self.float32 else "float64") if ridge else None,
            "seeds": seeds,
        }

    def file_words(self) -> list[str]:
        """What differs from the paper's protocol, as words of a file name."""
        probes = [] if tuple(self.probes) == ("ridge",) else [*self.probes]
        return [*probes, *([self.layer] if self.layer is not None else [])]

    def title(self, start: str) -> str:
        """A title with what differs from the paper's protocol."""
        probes = [] if tuple(self.probes) == ("ridge",) else [" and ".join(NAMES[probe] for probe in self.probes)]
        return ", ".join([start, *probes, *([f"layer {self.layer}"] if self.layer is not None else [])])

    def sentence(self, seeds: int) -> str:
        """One sentence that says what the table shows."""
        precision = ", in float32" if self.float32 else ""
        ways: dict[Probe, str] = {
            "ridge": f"a linear classifier in closed form (least squares, l2 {self.l2:g}{precision})",
            "knn": f"the votes of up to {NEIGHBOURS} nearest neighbours by cosine similarity",
            "logistic": f"a logistic regression (l2 {LOGISTIC_L2:g})",
        }
        features = "Frozen features" if self.layer is None else f"Frozen features of layer {self.layer}"
        how = ", and by ".join(ways[probe] for probe in self.probes)
        seeds_text = f"mean ± standard deviation over {seeds} random choices" if seeds > 1 else "one random choice"
        return f"{features}, classified by {how}; {seeds_text} of the training images, tested on all test images."


def joined_table(results: Results, shots: list[int], seeds: int, settings: Settings) -> ResultTable:
    """One table of all data sets, with the settings beside the numbers of each; a single data set has its own table."""
    tables = {}
    for data, by_features in results.items():
        table = fewshot_table(by_features, data, shots, seeds, settings)
        tables[data] = replace(table, numbers={**table.numbers, "settings": settings.as_numbers(seeds)})
    first = next(iter(tables.values()))
    if len(tables) == 1:
        return first
    return ResultTable(
        title=settings.title("Few-shot accuracy (%)"),
        summary=first.summary,
        columns=["data", *first.columns],
        rows=[[data, *row] for data, table in tables.items() for row in table.rows],
        notes=list(dict.fromkeys(note for table in tables.values() for note in table.notes)),
        numbers={data: table.numbers for data, table in tables.items()},
    )


def fewshot_table(
    by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int, settings: Settings = Settings()
) -> ResultTable:
    """Accuracy by features and number of shots: the mean, with the standard deviation if there are several seeds."""
    rows = [[name, *(_cell(result, count) for count in shots)] for name, result in by_features.items()]
    numbers: dict[str, object] = {
        name: {str(count): list(result.accuracies[count]) for count in shots} for name, result in by_features.items()
    }
    swept = {name: result.sweep for name, result in by_features.items() if result.sweep}
    if swept:
        numbers["sweep"] = {name: {str(shot): tried for shot, tried in sweep.items()} for name, sweep in swept.items()}
    return ResultTable(
        title=settings.title(f"Few-shot accuracy on {data} (%)"),
        summary=settings.sentence(seeds),
        columns=["features", *(f"{count}-shot" for count in shots)],
        rows=rows,
        # A terminal shows no summary, and a report does not repeat it among the notes.
        notes=[settings.sentence(seeds), *_notes(by_features, data, shots, seeds)],
        numbers=numbers,
    )


def _cell(result: FewShot, shots: int) -> str:
    mean = f"{100 * result.mean(shots):.1f}"
    return f"{mean} ± {100 * result.deviation(shots):.1f}" if len(result.accuracies[shots]) > 1 else mean


def _notes(by_features: Mapping[str, FewShot], data: str, shots: list[int], seeds: int) -> list[str]:
    notes = []
    if seeds > 1:
        widest = max(result.half_width(count) for result in by_features.values() for count in shots)
        notes.append(
            f"{data}: the 95 % intervals of the means (Student's t, {seeds} seeds) are at most ± {100 * widest:.1f}."
        )
    for name, result in by_features.items():
        for count, tried in result.sweep.items():
            best = max(tried, key=lambda penalty: tried[penalty])
            notes.append(
                f"{data}, {name}, {count}-shot: best penalty 2^{math.log2(best):.0f}, {100 * tried[best]:.1f} % "
                "(chosen on the test images, so it is optimistic)."
            )
    return notes
