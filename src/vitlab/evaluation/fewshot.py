"""Few-shot accuracy of frozen features: supports, seeds, and what classifies them (paper: section 4.1).

Legend: N = images, D = width of the features, K = classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from vitlab.errors import UserError
from vitlab.evaluation import probes
from vitlab.evaluation.features import features_of as features_of
from vitlab.evaluation.features import pixels_of as pixels_of
from vitlab.evaluation.intervals import student_half_width
from vitlab.evaluation.least_squares import LeastSquares as LeastSquares
from vitlab.evaluation.least_squares import check_penalty, factorise
from vitlab.evaluation.least_squares import solve as solve
from vitlab.runtime import derived_seed

Probe = Literal["ridge", "knn", "logistic"]
# The 30 penalties of the authors' earlier code.
PENALTIES = tuple(2.0**power for power in range(-10, 20))


@dataclass(frozen=True)
class FewShot:
    """Accuracies by number of shots: one for each seed.

    Attributes:
        shots: how many images a class.
        accuracies: by shots.
        sweep: by shots and penalty, the mean over the seeds; empty where no penalties were asked for.
    """

    shots: tuple[int, ...]
    accuracies: dict[int, tuple[float, ...]]
    sweep: dict[int, dict[float, float]] = field(default_factory=dict)

    def mean(self, shots: int) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies[shots]))

    def deviation(self, shots: int) -> float:
        """Standard deviation over the seeds (of the sample; 0 for a single seed)."""
        values = self.accuracies[shots]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

    def half_width(self, shots: int) -> float:
        """Half of the mean's 95 % interval over the seeds, by Student's t."""
        return student_half_width(self.accuracies[shots])


def evaluate(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
    shots: Sequence[int],
    *,
    seeds: int = 3,
    l2: float = 1024.0,
    probe: Probe = "ridge",
    penalties: Sequence[float] = (),
    dtype: torch.dtype = torch.float64,
) -> FewShot:
    """Few-shot accuracy on all of `test` after fitting `shots` images a class of `train`.

    Args:
        train: features (N, D) and class numbers (N,) to choose the support from.
        test: features and class numbers to be tested on, all of them.
        classes: names of the K classes.
        shots: images a class; a class with fewer is refused.
        seeds: how many random supports; each takes the first images of a seeded permutation of every class.
        l2: penalty of least squares.
        probe: what classifies: least squares, the nearest neighbours, or a logistic regression.
        penalties: others to be tried as well, of least squares; they cost a product of matrices each.
        dtype: of least squares.

    Raises:
        UserError: a class with fewer images than shots, or without a test image; features that are not finite, of
            either part; labels outside the classes; a penalty that is no number from 0 to 10^30.
    """
    check_penalty(l2)
    _check_shots(train[1], test[1], classes, max(shots))
    _check_finite(train[0], "training")
    _check_finite(test[0], "test")
    accuracies, sweep = {}, {}
    for count in shots:
        values, tried = [], []
        for seed in range(seeds):
            chosen = support(train[1], len(classes), count, seed)
            features, labels = train[0][chosen], train[1][chosen]
            if probe == "ridge":
                factors = factorise(features, labels, len(classes), dtype)
                value, *others = factors.sweep(test[0], test[1], [l2, *penalties])
                values.append(value)
                tried.append(others)
            else:
                predict = _fitted(probe, features, labels, len(classes))
                values.append(float((predict(test[0]) == test[1]).mean()))
        accuracies[count] = tuple(values)
        if penalties:
            sweep[count] = dict(zip(penalties, np.mean(tried, axis=0).tolist(), strict=True))
    return FewShot(tuple(shots), accuracies, sweep)


def _fitted(
    probe: Probe, features_ND: np.ndarray, labels_N: np.ndarray, classes: int
) -> Callable[[np.ndarray], np.ndarray]:
    if probe == "knn":
        return probes.nearest_neighbours(features_ND, labels_N, classes).predict
    return probes.logistic(features_ND, labels_N, classes).predict


def support(labels_N: np.ndarray, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Indices of the first `shots` images of each class in an order that is a function of (seed, class)."""
    chosen = []
    for k in range(num_classes):
        members = np.flatnonzero(labels_N == k)
        order = np.random.default_rng(derived_seed(seed, "few-shot", k)).permutation(len(members))
        chosen.append(members[order[:shots]])
    return np.concatenate(chosen)


def _check_finite(features_ND: np.ndarray, part: str) -> None:
    """A probe would give images that it has no features of a class nonetheless, and some would be right by chance."""
    finite_N = np.isfinite(features_ND).all(1)
    if not finite_N.all():
        raise UserError(
            f"few-shot: the features of {part} image {int(finite_N.argmin())} (counted from 0) hold NaN or infinite "
            f"values, as those of {int((~finite_N).sum())} images do; the weights may be damaged"
        )


def _check_shots(train_N: np.ndarray, test_M: np.ndarray, classes: Sequence[str], shots: int) -> None:
    for labels in (train_N, test_M):
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(classes)):
            raise UserError(
                f"few-shot: labels go from {labels.min()} to {labels.max()}, but there are {len(classes)} classes"
            )
    tested = np.bincount(test_M, minlength=len(classes))
    for name, count, test_count in zip(classes, np.bincount(train_N, minlength=len(classes)), tested, strict=True):
        if count < shots:
            raise UserError(
                f"few-shot: class '{name}' has {count} training images, fewer than {shots} shots; use --shots"
            )
        if not test_count:
            raise UserError(f"few-shot: class '{name}' has no test image; add some, or leave the class out of training")
