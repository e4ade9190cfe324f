"""Regularised least squares to {-1, 1} targets in closed form, for any number of penalties (paper: section 4.1).

With standardised features X (N, E), the last of them the constant 100, and targets Y (N, K), the weights are
(X'X + l2 I)^-1 X'Y, or X'(XX' + l2 I)^-1 Y where there are fewer images than features. Both are
B diag(1 / (eigenvalue + l2)) T with a basis B and targets T that do not depend on the penalty: one eigendecomposition
serves all penalties. Y has a single 1 per row, so products with it are sums over classes.

Legend: N = images, D = width of the features, E = D + 1, R = min(N, E), K = classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from vitlab.errors import UserError

BIAS_FEATURE = 100.0
STD_FLOOR = 1e-5
GRAM_BLOCKS = 8  # 9/16 of the work of a product that ignores symmetry
MAX_PENALTY = 1e30  # above it the weights underflow in float32
Array = TypeVar("Array", Tensor, np.ndarray)


@dataclass(frozen=True)
class LeastSquares:
    """A fitted linear classifier: `scores` before the argmax, `predict` after it."""

    mean_D: Tensor
    std_D: Tensor
    weights_EK: Tensor

    def scores(self, features: Array) -> Array:
        """Regression outputs (N, K) for features (N, D), in the precision of the fit; numpy in, numpy out.

        Raises:
            UserError: features that are not finite.
        """
        inputs_NE = _standardise(_finite(features, self.weights_EK.dtype), self.mean_D, self.std_D)
        outputs_NK = inputs_NE @ self.weights_EK
        return outputs_NK if isinstance(features, Tensor) else outputs_NK.numpy()

    def predict(self, features: Array) -> Array:
        """The class number (N,) with the highest score for features (N, D)."""
        best: Array = self.scores(features).argmax(-1)
        return best


@dataclass(frozen=True)
class Factorised:
    """Everything about a support set that does not depend on the penalty.

    Attributes:
        mean_D, std_D: of the support's features.
        values_R: eigenvalues of the smaller Gram matrix.
        basis_ER: B, see above.
        targets_RK: T.
    """

    mean_D: Tensor
    std_D: Tensor
    values_R: Tensor
    basis_ER: Tensor
    targets_RK: Tensor

    def at(self, l2: float) -> LeastSquares:
        """The classifier for one penalty: one matrix product, no new decomposition."""
        return LeastSquares(self.mean_D, self.std_D, (self.basis_ER * self._factors(l2)) @ self.targets_RK)

    def sweep(self, features: Array, labels: Array, penalties: Sequence[float]) -> list[float]:
        """Accuracy on features (N, D) with class numbers (N,) for every penalty.

        Raises:
            UserError: features that are not finite, or an invalid penalty.
        """
        coordinates_NR = _standardise(_finite(features, self.basis_ER.dtype), self.mean_D, self.std_D)
        coordinates_NR = coordinates_NR @ self.basis_ER
        truth_N = torch.as_tensor(labels).cpu()
        scores = ((coordinates_NR * self._factors(l2)) @ self.targets_RK for l2 in penalties)
        return [float((scores_NK.argmax(-1) == truth_N).double().mean()) for scores_NK in scores]

    def _factors(self, l2: float) -> Tensor:
        """1 / (eigenvalue + l2), (R,)."""
        check_penalty(l2)
        factors_R = 1 / (self.values_R + l2)
        if not bool(torch.isfinite(factors_R).all()):
            raise UserError(f"few-shot: with l2 {l2:g} these features have no unique solution; give a larger penalty")
        return factors_R


def check_penalty(l2: float) -> None:
    """Refuse an invalid penalty.

    Raises:
        UserError: it is not a number from 0 to 10^30.
    """
    if not 0 <= l2 <= MAX_PENALTY:  # NaN included
        raise UserError(f"few-shot: the penalty l2 is {l2:g}; give a number from 0 to {MAX_PENALTY:g}, such as 1024")


def factorise(features: Array, labels: Array, num_classes: int, dtype: torch.dtype = torch.float64) -> Factorised:
    """Decompose a support set once, for any number of penalties.

    Args:
        features: the support set's features (N, D).
        labels: their class numbers (N,), from 0 to num_classes - 1.
        num_classes: K.
        dtype: of the arithmetic. float32 is faster, but small penalties are then lost in rounding, because the constant
            feature alone adds 10^4 per image to the Gram matrix.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    features_ND, labels_N = _as_tensor(features, dtype), torch.as_tensor(labels).cpu().long()
    check(features_ND, labels_N, num_classes)
    mean_D = features_ND.mean(0)
    std_D = features_ND.std(0, correction=0)
    inputs_NE = _standardise(features_ND, mean_D, std_D)
    images, width = inputs_NE.shape
    if images >= width:
        values_R, basis_ER = torch.linalg.eigh(_gram(inputs_NE.T))
        targets_RK = basis_ER.T @ _times_targets(inputs_NE, labels_N, num_classes)
    else:
        values_R, vectors_NR = torch.linalg.eigh(_gram(inputs_NE))
        basis_ER = inputs_NE.T @ vectors_NR
        targets_RK = _times_targets(vectors_NR, labels_N, num_classes)
    return Factorised(mean_D, std_D, values_R.clamp_min(0), basis_ER, targets_RK)


def solve(
    features: Array, labels: Array, num_classes: int, l2: float = 1024.0, dtype: torch.dtype = torch.float64
) -> LeastSquares:
    """Fit features to {-1, 1} targets by least squares with an L2 penalty (paper: section 4.1).

    Features are standardised by the support set's mean and standard deviation, and a constant feature of 100,
    penalised like the others, serves as the bias. With fewer images than features the dual form is solved; both use
    the eigenvalues of the smaller Gram matrix.

    Args:
        features: the support set's features (N, D).
        labels: their class numbers (N,), from 0 to num_classes - 1.
        num_classes: K.
        l2: the penalty; 2^10 by default, as in the authors' later code.
        dtype: see `factorise`.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    return factorise(features, labels, num_classes, dtype).at(l2)


def check(features_ND: Tensor, labels_N: Tensor, num_classes: int) -> None:
    """Refuse features and labels that nothing can be fitted to.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    # The sum is finite only if every value is: one pass without a mask in the usual case.
    if not bool(torch.isfinite(features_ND.sum())) and not bool(torch.isfinite(features_ND).all()):
        raise UserError("few-shot: the features contain NaN or infinite values; the weights may be damaged")
    if len(labels_N) != len(features_ND):
        raise UserError(f"few-shot: {len(features_ND)} features but {len(labels_N)} labels")
    if len(labels_N) and not (int(labels_N.min()) >= 0 and int(labels_N.max()) < num_classes):
        lowest, highest = int(labels_N.min()), int(labels_N.max())
        raise UserError(f"few-shot: labels range from {lowest} to {highest}, but there are {num_classes} classes")


def _gram(rows: Tensor) -> Tensor:
    """Rows @ rows.T; of the symmetric result only the blocks on and above the diagonal are computed."""
    count = len(rows)
    products = rows.new_empty(count, count)
    edges = [count * block // GRAM_BLOCKS for block in range(GRAM_BLOCKS + 1)]
    for first, last in pairwise(edges):
        products[first:last, first:] = rows[first:last] @ rows[first:].T
        products[last:, first:last] = products[first:last, last:].T
    return products


def _times_targets(rows_NR: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    """rows.T @ Y: Y is 2 at the label minus 1 everywhere, so it needs the sum over each class and over all rows."""
    sums_KR = rows_NR.new_zeros(num_classes, rows_NR.shape[1]).index_add_(0, labels_N, rows_NR)
    return (2 * sums_KR - rows_NR.sum(0)).T


def _standardise(features_ND: Tensor, mean_D: Tensor, std_D: Tensor) -> Tensor:
    inputs_NE = features_ND.new_full((len(features_ND), features_ND.shape[1] + 1), BIAS_FEATURE)
    torch.sub(features_ND, mean_D, out=inputs_NE[:, :-1])
    inputs_NE[:, :-1] /= std_D + STD_FLOOR
    return inputs_NE


def _finite(features: Tensor | np.ndarray, dtype: torch.dtype) -> Tensor:
    """Features to be classified, refused if not finite: argmax would give NaN a class too."""
    features_ND = _as_tensor(features, dtype)
    finite_N = torch.isfinite(features_ND).all(1)
    if not bool(finite_N.all()):
        first = int(finite_N.long().argmin())
        raise UserError(
            f"the features to be classified contain NaN or infinite values, first in row {first} (counted from 0); "
            "the weights may be damaged"
        )
    return features_ND


def _as_tensor(features: Tensor | np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(features).detach().cpu().to(dtype)
