"""Few-shot accuracy of frozen features: support sets, seeds, classifiers, and the tables (paper: section 4.1).

Legend: N = training images, M = test images, D = width of the features, K = classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch

from vitlab.errors import UserError
from vitlab.evaluation import probes
from vitlab.evaluation.features import Features
from vitlab.evaluation.features import features_of as features_of
from vitlab.evaluation.features import pixels_of as pixels_of
from vitlab.evaluation.least_squares import check_penalty, factorise
from vitlab.evaluation.least_squares import solve as solve
from vitlab.evaluation.uncertainty import student_half_width
from vitlab.results import ResultTable
from vitlab.runtime import derived_seed

Probe = Literal["ridge", "knn", "logistic"]
# The 30 penalties of the authors' earlier code.
PENALTIES = tuple(2.0**power for power in range(-10, 20))
NAMES: dict[Probe, str] = {"ridge": "least squares", "knn": "nearest neighbours", "logistic": "logistic regression"}
PIXELS = "raw pixels"
RESERVED = {PIXELS, "sweep", "settings"}  # entries of the stored numbers, which no model may be called
L2 = 1024.0


@dataclass(frozen=True)
class FewShot:
    """Accuracies by number of shots, one per seed.

    Attributes:
        shots: numbers of images per class.
        accuracies: by shots.
        sweep: by shots and penalty, the mean over the seeds; empty if no penalties were tried.
    """

    shots: tuple[int, ...]
    accuracies: dict[int, tuple[float, ...]]
    sweep: dict[int, dict[float, float]] = field(default_factory=dict)

    def mean(self, shots: int) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies[shots]))

    def deviation(self, shots: int) -> float:
        """Sample standard deviation over the seeds; 0 for a single seed."""
        values = self.accuracies[shots]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def half_width(self, shots: int) -> float:
        """Half the width of the mean's 95 % confidence interval over the seeds, by Student's t."""
        return student_half_width(self.accuracies[shots])


def evaluate(
    train: Features,
    test: Features,
    classes: Sequence[str],
    shots: Sequence[int],
    *,
    seeds: int = 3,
    l2: float = L2,
    probe: Probe = "ridge",
    penalties: Sequence[float] = (),
    dtype: torch.dtype = torch.float64,
) -> FewShot:
    """Accuracy on all of `test` after fitting a classifier to `shots` images per class of `train`.

    Args:
        train: features (N, D) and class numbers (N,), from which the support sets are drawn.
        test: features (M, D) and class numbers (M,), all of which are tested.
        classes: names of the K classes.
        shots: numbers of images per class; a class with fewer is refused.
        seeds: number of random support sets, see `support`.
        l2: penalty of least squares.
        probe: the classifier: least squares ("ridge"), nearest neighbours, or a logistic regression.
        penalties: further penalties of least squares to try; each costs one matrix product.
        dtype: of least squares.

    Raises:
        UserError: a class with fewer images than shots, or without a test image; features that are not finite;
            labels outside the classes; a penalty that is not a number from 0 to 10^30.
    """
    _check(train, test, classes, max(shots), l2)
    tried = [l2, *penalties] if probe == "ridge" else [l2]
    accuracies, sweep = {}, {}
    for count in shots:
        chosen = [support(train[1], len(classes), count, seed) for seed in range(seeds)]
        sets = [(train[0][few], train[1][few]) for few in chosen]
        by_seed = np.array([_accuracies(few, test, len(classes), probe, tried, dtype) for few in sets])
        accuracies[count] = tuple(by_seed[:, 0].tolist())
        sweep[count] = dict(zip(tried[1:], by_seed[:, 1:].mean(axis=0).tolist(), strict=True))
    return FewShot(tuple(shots), accuracies, sweep if len(tried) > 1 else {})


def _accuracies(
    few: Features, test: Features, classes: int, probe: Probe, penalties: Sequence[float], dtype: torch.dtype
) -> list[float]:
    """Accuracy after fitting the support set `few`: one per penalty of least squares, a single one of other probes."""
    if probe == "ridge":
        return factorise(*few, classes, dtype).sweep(*test, penalties)
    fitted: probes.Neighbours | probes.Logistic = (
        probes.nearest_neighbours(*few, classes) if probe == "knn" else probes.logistic(*few, classes)
    )
    return [float((fitted.predict(test[0]) == test[1]).mean())]


def support(labels_N: np.ndarray, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Indices of a support set: the first `shots` images of each class, permuted as a function of (seed, class)."""
    chosen = []
    for k in range(num_classes):
        members = np.flatnonzero(labels_N == k)
        order = np.random.default_rng(derived_seed(seed, "few-shot", k)).permutation(len(members))
        chosen.append(members[order[:shots]])
    return np.concatenate(chosen)


def _check(train: Features, test: Features, classes: Sequence[str], shots: int, l2: float) -> None:
    check_penalty(l2)
    _check_shots(train[1], test[1], classes, shots)
    _check_finite(train[0], "training")
    _check_finite(test[0], "test")


def _check_finite(features_ND: np.ndarray, split: str) -> None:
    """Refuse NaN and infinity: a probe would predict some class all the same, and be correct by chance at times."""
    finite_N = np.isfinite(features_ND).all(1)
    if not finite_N.all():
        raise UserError(
            f"few-shot: the features of {split} image {int(finite_N.argmin())} (counted from 0) contain NaN or "
            f"infinite values, as do those of {int((~finite_N).sum())} images in total; the weights may be damaged"
        )


def _check_shots(train_N: np.ndarray, test_M: np.ndarray, classes: Sequence[str], shots: int) -> None:
    for labels in (train_N, test_M):
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
            raise UserError(
                f"few-shot: labels range from {labels.min()} to {labels.max()}, but there are {len(classes)} classes"
            )
    counts_K, test_counts_K = (np.bincount(labels, minlength=len(classes)) for labels in (train_N, test_M))
    for name, count, test_count in zip(classes, counts_K, test_counts_K, strict=True):
        if count < shots:
            raise UserError(f"few-shot: '{name}' has {count} training images, fewer than {shots} shots; lower --shots")
        if not test_count:
            raise UserError(f"few-shot: class '{name}' has no test image; add one, or remove it from the training data")


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
        l2, dtype = (self.l2, "float32" if self.float32 else "float64") if ridge else (None, None)
        return {"probes": list(self.probes), "layer": self.layer, "l2": l2, "dtype": dtype, "seeds": seeds}

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
            "knn": f"the votes of up to {probes.NEIGHBOURS} nearest neighbours by cosine similarity",
            "logistic": f"a logistic regression (l2 {probes.LOGISTIC_L2:g})",
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
