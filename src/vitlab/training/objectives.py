"""What training minimises. Legend: B = images, K = classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.recipes.schema import ObjectivePart


def loss(logits_BK: Tensor, labels_B: Tensor, objective: ObjectivePart) -> Tensor:
    """Mean loss per image, a float32 scalar.

    Softmax cross-entropy (paper: section 4.1, fine-tuning), or sigmoid cross-entropy summed over the classes and
    averaged over images (the pretraining on ImageNet-21k and JFT). Label smoothing s gives the true class
    1 - s + s / K and the others s / K.
    """
    logits_BK = logits_BK.float()
    if objective.loss == "softmax":
        return F.cross_entropy(logits_BK, labels_B, label_smoothing=objective.label_smoothing)
    classes = logits_BK.shape[-1]
    targets_BK = F.one_hot(labels_B, classes).to(torch.float32)
    if objective.label_smoothing:
        targets_BK = targets_BK * (1 - objective.label_smoothing) + objective.label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits_BK, targets_BK, reduction="none").sum(-1).mean()
