"""Whether a model's probabilities mean what they say (Guo et al. 2017). Legend: N = images, K = classes, B = bins."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose highest probability lies in (low, high].

    Attributes:
        low, high: the bin's edges.
        images: how many there are.
        confidence: the mean of their highest probabilities; 0 without images.
        accuracy: the share of them that is right; 0 without images.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(labels_N: NDArray[np.int64], probabilities_NK: NDArray[np.float32], bins: int = BINS) -> list[Bin]:
    """Accuracy beside confidence in bins of equal width, lowest first."""
    confidence_N = probabilities_NK.max(axis=1).astype(np.float64)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    number_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    counts_B = np.bincount(number_N, minlength=bins)
    confidences_B = np.bincount(number_N, confidence_N, minlength=bins) / np.maximum(counts_B, 1)
    accuracies_B = np.bincount(number_N, right_N, minlength=bins) / np.maximum(counts_B, 1)
    return [
        Bin(number / bins, (number + 1) / bins, int(count), float(confidence), float(accuracy))
        for number, (count, confidence, accuracy) in enumerate(zip(counts_B, confidences_B, accuracies_B, strict=True))
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """ECE: the mean distance of accuracy from confidence, each bin weighted by its images; 0 is perfect."""
    images = sum(part.images for part in bins)
    return sum(part.images * abs(part.accuracy - part.confidence) for part in bins) / max(1, images)
