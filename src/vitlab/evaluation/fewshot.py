"""Few-shot accuracy of frozen features by regularised least squares, in closed form (paper: section 4.1).

The regression maps standardised features to {-1, 1}^K. Legend: N = images, D = width of the features,
K = classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime, derived_seed

BIAS_FEATURE = 100.0
SPREAD_FLOOR = 1e-5
Array = TypeVar("Array", Tensor, np.ndarray)


@dataclass(frozen=True)
class LeastSquares:
    """A fitted linear classifier: `scores` before the argmax, `predict` after it."""

    mean_D: Tensor
    spread_D: Tensor
    weights_DK: Tensor

    def scores(self, features: Array) -> Array:
        """Regression outputs (N, K) in float64 for features (N, D); numpy in, numpy out."""
        inputs_ND = _standardise(_as_tensor(features), self.mean_D, self.spread_D)
        outputs_NK = inputs_ND @ self.weights_DK
        return outputs_NK if isinstance(features, Tensor) else outputs_NK.numpy()

    def predict(self, features: Array) -> Array:
        """The class number (N,) with the highest score for features (N, D)."""
        best: Array = self.scores(features).argmax(-1)
        return best


def solve(features: Array, labels: Array, num_classes: int, l2: float = 1024.0) -> LeastSquares:
    """Fit features to {-1, 1} targets by least squares with an L2 penalty, in float64 (paper: section 4.1).

    Features are standardised by the support set's mean and standard deviation, and a constant feature of 100,
    penalised alike, stands for the bias. With fewer images than features the dual form is solved: both
    by the eigenvalues of the smaller Gram matrix.

    Args:
        features: the support set's features (N, D).
        labels: their class numbers (N,), from 0 to num_classes - 1.
        num_classes: K.
        l2: the penalty; 2^10 by default, as in the authors' later code.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    features_ND, labels_N = _as_tensor(features), torch.as_tensor(labels).cpu().long()
    _check(features_ND, labels_N, num_classes)
    mean_D = features_ND.mean(0)
    spread_D = features_ND.std(0, correction=0)
    inputs_ND = _standardise(features_ND, mean_D, spread_D)
    targets_NK = 2 * torch.nn.functional.one_hot(labels_N, num_classes).double() - 1
    images, width = inputs_ND.shape
    if images >= width:
        weights_DK = _ridge_inverse(inputs_ND.T @ inputs_ND, l2, inputs_ND.T @ targets_NK)
    else:
        weights_DK = inputs_ND.T @ _ridge_inverse(inputs_ND @ inputs_ND.T, l2, targets_NK)
    return LeastSquares(mean_D, spread_D, weights_DK)


@dataclass(frozen=True)
class FewShot:
    """Accuracies by number of shots: one for each seed."""

    shots: tuple[int, ...]
    accuracies: dict[int, tuple[float, ...]]

    def mean(self, shots: int) -> float:
        """Mean accuracy over the seeds."""
        return float(np.mean(self.accuracies[shots]))

    def deviation(self, shots: int) -> float:
        """Standard deviation over the seeds (of the sample; 0 for a single seed)."""
        values = self.accuracies[shots]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def evaluate(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    classes: Sequence[str],
    shots: Sequence[int],
    *,
    seeds: int = 3,
    l2: float = 1024.0,
) -> FewShot:
    """Few-shot accuracy on all of `test` after fitting `shots` images a class of `train`.

    Args:
        train: features (N, D) and class numbers (N,) to choose the support from.
        test: features and class numbers to be tested on, all of them.
        classes: names of the K classes.
        shots: images a class; a class with fewer is refused.
        seeds: how many random supports; each takes the first images of a seeded permutation of every class.
        l2: penalty of the regression.
    """
    _check_shots(train[1], classes, max(shots))
    accuracies = {}
    for count in shots:
        values = []
        for seed in range(seeds):
            chosen = support(train[1], len(classes), count, seed)
            fitted = solve(train[0][chosen], train[1][chosen], len(classes), l2)
            values.append(float((fitted.predict(test[0]) == test[1]).mean()))
        accuracies[count] = tuple(values)
    return FewShot(tuple(shots), accuracies)


def support(labels_N: np.ndarray, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Indices of the first `shots` images of each class in an order that is a function of (seed, class)."""
    chosen = []
    for k in range(num_classes):
        members = np.flatnonzero(labels_N == k)
        order = np.random.default_rng(derived_seed(seed, "few-shot", k)).permutation(len(members))
        chosen.append(members[order[:shots]])
    return np.concatenate(chosen)


def features_of(
    model: Model, source: Source, preprocessing: Preprocessing, runtime: Runtime, *, batch_size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """The frozen model's features (N, D) in float32 and the class numbers (N,) of every image of `source`."""
    was_training = model.training
    model.eval().to(runtime.device)
    features, labels = [], []
    with torch.inference_mode(), runtime.autocast():
        for batch in loader.evaluation_batches(source, preprocessing, batch_size=batch_size):
            images_BCHW = loader.normalise(batch.images_BHWC, preprocessing, runtime.device)
            features.append(model.features(images_BCHW).float().cpu().numpy())
            labels.append(batch.labels_B.numpy())
    model.train(was_training)
    return np.concatenate(features), np.concatenate(labels)


def pixels_of(source: Source, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Raw pixels (N, height x width x 3) as features: what a model has to beat."""
    batches = list(loader.evaluation_batches(source, preprocessing, batch_size=256))
    pixels = [batch.images_BHWC.flatten(1).numpy().astype(np.float32) / 255 for batch in batches]
    return np.concatenate(pixels), np.concatenate([batch.labels_B.numpy() for batch in batches])


def _ridge_inverse(gram: Tensor, l2: float, right: Tensor) -> Tensor:
    """(gram + l2 I)^-1 right, by the eigenvalues of the symmetric matrix."""
    values, vectors = torch.linalg.eigh(gram)
    inverse: Tensor = vectors @ ((vectors.T @ right) / (values.clamp_min(0) + l2)[:, None])
    return inverse


def _standardise(features_ND: Tensor, mean_D: Tensor, spread_D: Tensor) -> Tensor:
    scaled_ND = (features_ND - mean_D) / (spread_D + SPREAD_FLOOR)
    return torch.nn.functional.pad(scaled_ND, (0, 1), value=BIAS_FEATURE)


def _as_tensor(features: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(features).detach().cpu().double()


def _check(features_ND: Tensor, labels_N: Tensor, num_classes: int) -> None:
    if not bool(torch.isfinite(features_ND).all()):
        raise UserError("few-shot: the features hold NaN or infinite values; the weights may be damaged")
    if len(labels_N) != len(features_ND):
        raise UserError(f"few-shot: {len(features_ND)} features but {len(labels_N)} labels")
    if len(labels_N) and not (int(labels_N.min()) >= 0 and int(labels_N.max()) < num_classes):
        lowest, highest = int(labels_N.min()), int(labels_N.max())
        raise UserError(f"few-shot: labels go from {lowest} to {highest}, but there are {num_classes} classes")


def _check_shots(labels_N: np.ndarray, classes: Sequence[str], shots: int) -> None:
    counts = np.bincount(labels_N, minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count < shots:
            raise UserError(
                f"few-shot: class '{name}' has {count} training images, fewer than {shots} shots; use --shots"
            )
