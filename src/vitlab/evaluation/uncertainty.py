"""How far an accuracy can be trusted: confidence intervals, and the calibration of the probabilities.

Legend: N = images, K = classes, B = bins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
NORMAL_95 = 1.959963984540054
# The 97.5 % point of Student's t by degrees of freedom; beyond the last one the normal's is close enough.
STUDENT_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of the accuracy `correct` / `images` (Wilson 1927).

    It stays within [0, 1] and holds for few images too. Without images it is (0, 1).
    """
    assert 0 <= correct <= images
    if not images:
        return 0.0, 1.0
    share, square = correct / images, NORMAL_95**2
    middle = (share + square / (2 * images)) / (1 + square / images)
    half = NORMAL_95 / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    return (0.0 if correct == 0 else middle - half), (1.0 if correct == images else middle + half)


def interval_text(correct: int, images: int) -> str:
    """Wilson's interval in percent, such as "78.9 to 83.6"."""
    low, high = wilson_interval(correct, images)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def student_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t; 0 for a single value."""
    count = len(values)
    if count < 2:
        return 0.0
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    factor = STUDENT_95[count - 2] if count - 2 < len(STUDENT_95) else NORMAL_95
    return factor * deviation / math.sqrt(count)


@dataclass(frozen=True)
class Bin:
    """The images whose highest probability lies in (low, high].

    Attributes:
        low, high: the bin's edges.
        images: their number.
        confidence: the mean of their highest probabilities; 0 without images.
        accuracy: their top-1 accuracy; 0 without images.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(labels_N: NDArray[np.int64], probabilities_NK: NDArray[np.float32], bins: int = BINS) -> list[Bin]:
    """The reliability diagram: accuracy and confidence in bins of equal width, lowest first (Guo et al. 2017)."""
    confidence_N = probabilities_NK.max(axis=1).astype(np.float64)
    correct_N = probabilities_NK.argmax(axis=1) == labels_N
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    counts_B = np.bincount(bin_N, minlength=bins)
    confidences_B = np.bincount(bin_N, confidence_N, minlength=bins) / np.maximum(counts_B, 1)
    accuracies_B = np.bincount(bin_N, correct_N, minlength=bins) / np.maximum(counts_B, 1)
    return [
        Bin(number / bins, (number + 1) / bins, int(count), float(confidence), float(accuracy))
        for number, (count, confidence, accuracy) in enumerate(zip(counts_B, confidences_B, accuracies_B, strict=True))
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """ECE: the mean of |accuracy - confidence|, each bin weighted by its images; 0 is perfect (Guo et al. 2017)."""
    images = sum(each.images for each in bins)
    return sum(each.images * abs(each.accuracy - each.confidence) for each in bins) / max(1, images)
