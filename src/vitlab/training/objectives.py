"""What training minimises. Legend: B = images, K = classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.recipes.schema import ObjectiveConfig


def loss(logits_BK: Tensor, targets: Tensor, objective: ObjectiveConfig) -> Tensor:
    """Mean loss per image, a float32 scalar; see `total`."""
    return total(logits_BK, targets, objective) / len(logits_BK)


def total(logits_BK: Tensor, targets: Tensor, objective: ObjectiveConfig) -> Tensor:
    """Summed loss of the images, a float32 scalar: sums of microbatches add up to that of the batch.

    Softmax cross-entropy (paper: section 4.1, fine-tuning), or sigmoid cross-entropy summed over the classes (the
    pretraining on ImageNet-21k and JFT). Label smoothing s turns a target t into t (1 - s) + s / K.

    Args:
        logits_BK: of any precision; the loss is computed in float32.
        targets: int64 classes (B,), or the shares of the classes (B, K), as mixed images have them.
        objective: the kind of loss, and its smoothing.
    """
    logits_BK = logits_BK.float()
    if objective.loss == "softmax":
        return F.cross_entropy(logits_BK, targets, reduction="sum", label_smoothing=objective.label_smoothing)
    classes = logits_BK.shape[-1]
    targets_BK = targets if targets.is_floating_point() else F.one_hot(targets, classes).to(torch.float32)
    if objective.label_smoothing:
        targets_BK = targets_BK * (1 - objective.label_smoothing) + objective.label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, reduction="sum")


def correct(logits_BK: Tensor, targets: Tensor) -> Tensor:
    """How many images are classified correctly, an int64 scalar; a mixed image counts as its largest share."""
    labels_B = targets.argmax(-1) if targets.is_floating_point() else targets
    return (logits_BK.argmax(-1) == labels_B).sum()
