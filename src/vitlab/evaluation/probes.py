"""Other classifiers of frozen features, beside least squares.

Legend: N = images of the support set, D = width of the features, K = classes, M = test images, C = those of a chunk.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitlab.evaluation.least_squares import STD_FLOOR, check

NEIGHBOURS = 20
TEMPERATURE = 0.07
CHUNK = 4096
STEPS = 200
LOGISTIC_L2 = 1.0


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours by cosine similarity; votes are weighted with exp(cosine / temperature) (Wu et al. 2018)."""

    unit_ND: Tensor
    labels_N: Tensor
    classes: int
    neighbours: int
    temperature: float

    def predict(self, features_MD: np.ndarray) -> np.ndarray:
        """The class number (M,) with the most votes; ties go to the lower one."""
        best = []
        for start in range(0, len(features_MD), CHUNK):
            chunk_CD = torch.as_tensor(features_MD[start : start + CHUNK]).double()
            cosine_CN = torch.nn.functional.normalize(chunk_CD) @ self.unit_ND.T
            nearest = cosine_CN.topk(min(self.neighbours, len(self.labels_N)))
            weights_Ck = (nearest.values / self.temperature).exp()
            votes_CK = weights_Ck.new_zeros(len(chunk_CD), self.classes)
            votes_CK.scatter_add_(1, self.labels_N[nearest.indices], weights_Ck)
            best.append(votes_CK.argmax(1))
        return torch.cat(best).numpy()


def nearest_neighbours(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    classes: int,
    *,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Neighbours:
    """Keep a support set for classification by its nearest images.

    Args:
        features_ND: its features.
        labels_N: their class numbers, from 0 to classes - 1.
        classes: K.
        neighbours: how many vote; all images if there are fewer.
        temperature: the smaller it is, the more weight the nearest have.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    features, labels = torch.as_tensor(features_ND).double(), torch.as_tensor(labels_N).long()
    check(features, labels, classes)
    return Neighbours(torch.nn.functional.normalize(features), labels, classes, neighbours, temperature)


@dataclass(frozen=True)
class Logistic:
    """A logistic regression on standardised features."""

    mean_D: Tensor
    std_D: Tensor
    weights_DK: Tensor
    bias_K: Tensor

    def logits(self, features_MD: np.ndarray) -> Tensor:
        """Logits (M, K) in float64."""
        inputs_MD = (torch.as_tensor(features_MD).double() - self.mean_D) / self.std_D
        return inputs_MD @ self.weights_DK + self.bias_K

    def predict(self, features_MD: np.ndarray) -> np.ndarray:
        """The most probable class number (M,)."""
        best_M: np.ndarray = self.logits(features_MD).argmax(1).numpy()
        return best_M


def logistic(features_ND: np.ndarray, labels_N: np.ndarray, classes: int, l2: float = LOGISTIC_L2) -> Logistic:
    """Multinomial logistic regression: minimises the summed cross-entropy plus l2 / 2 times the squared weights.

    The bias is not penalised. L-BFGS in float64 starts from zero, so the result is reproducible.

    Args:
        features_ND: the support set's features; they are standardised.
        labels_N: their class numbers, from 0 to classes - 1.
        classes: K.
        l2: the penalty; its scale is not that of least squares.

    Raises:
        UserError: features that are not finite, or labels outside the classes.
    """
    features, labels = torch.as_tensor(features_ND).double(), torch.as_tensor(labels_N).long()
    check(features, labels, classes)
    mean_D, std_D = features.mean(0), features.std(0, correction=0) + STD_FLOOR
    inputs_ND = (features - mean_D) / std_D
    weights_DK = torch.zeros(inputs_ND.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights_DK, bias_K], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        cross_entropy = torch.nn.functional.cross_entropy(inputs_ND @ weights_DK + bias_K, labels, reduction="sum")
        total = (cross_entropy + l2 / 2 * weights_DK.square().sum()) / len(labels)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Logistic(mean_D, std_D, weights_DK.detach(), bias_K.detach())
