"""How often a model is right, each image counted once. Legend: N = images, K = classes of the model."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from vitlab.data import loader
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime


@dataclass(frozen=True)
class Accuracy:
    """A model's answers on a data set.

    Attributes:
        labels_N: the true class of every image, as the model numbers its classes.
        probabilities_NK: softmax of the logits, float32.
    """

    labels_N: np.ndarray
    probabilities_NK: np.ndarray

    @property
    def images(self) -> int:
        """How many images were seen."""
        return len(self.labels_N)

    def top(self, k: int) -> float:
        """Share of images whose class is among the k most probable; of equal ones the lower number comes first."""
        own_N1 = np.take_along_axis(self.probabilities_NK, self.labels_N[:, None], axis=1)
        lower_NK = np.arange(self.probabilities_NK.shape[1]) < self.labels_N[:, None]
        before_NK = (self.probabilities_NK > own_N1) | ((self.probabilities_NK == own_N1) & lower_NK)
        return float((before_NK.sum(axis=1) < k).mean())

    @property
    def cross_entropy(self) -> float:
        """Mean of -log(probability of the true class), in nats."""
        own_N = np.take_along_axis(self.probabilities_NK, self.labels_N[:, None], axis=1)[:, 0]
        return float(-np.log(np.maximum(own_N, np.finfo(np.float32).tiny)).mean())

    def confusion(self) -> np.ndarray:
        """Counts (K, K): true class by predicted class."""
        classes = self.probabilities_NK.shape[1]
        counts_KK = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts_KK, (self.labels_N, self.probabilities_NK.argmax(axis=1)), 1)
        return counts_KK

    def per_class(self) -> list[float | None]:
        """Top-1 accuracy of each class; none where the data has no image of it."""
        counts_KK = self.confusion()
        totals_K = counts_KK.sum(axis=1)
        return [float(counts_KK[k, k] / total) if total else None for k, total in enumerate(totals_K)]


def measure(
    model: nn.Module,
    source: Source,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    classes: tuple[str, ...] | None = None,
    batch_size: int = 128,
) -> Accuracy:
    """The model's answers on every image of `source`.

    Args:
        model: (batch, 3, height, width) -> (batch, classes).
        source: the images; its classes must all be known to the model.
        preprocessing: what the model's images go through.
        runtime: device and precision.
        classes: names of the model's classes; labels are matched by name. None takes the source's numbering.
        batch_size: images at a time; it does not change the result.

    Raises:
        UserError: the source has a class that the model does not have.
    """
    numbers_K = _numbering(source.classes, classes)
    was_training = model.training
    model.eval().to(runtime.device)
    labels, probabilities = [], []
    with torch.inference_mode(), runtime.autocast():
        for batch in loader.evaluation_batches(source, preprocessing, batch_size=batch_size):
            logits_BK = model(loader.normalise(batch.images_BHWC, preprocessing, runtime.device))
            probabilities.append(logits_BK.float().softmax(-1).cpu().numpy())
            labels.append(numbers_K[batch.labels_B.numpy()])
    model.train(was_training)
    result = Accuracy(np.concatenate(labels), np.concatenate(probabilities))
    if result.labels_N.max() >= result.probabilities_NK.shape[1]:
        raise UserError(
            f"{source.name} has {len(source.classes)} classes and the model has {result.probabilities_NK.shape[1]}; "
            "fine-tune the model on this data first (`vitlab finetune`)"
        )
    return result


def _numbering(of_source: tuple[str, ...], of_model: tuple[str, ...] | None) -> np.ndarray:
    """Source's class number -> model's class number, by name."""
    if of_model is None or of_model == of_source:
        return np.arange(len(of_source))
    positions = {name: number for number, name in enumerate(of_model)}
    unknown = [name for name in of_source if name not in positions]
    if unknown:
        some = ", ".join(unknown[:5])
        raise UserError(
            f"the model does not know {len(unknown)} of the data's {len(of_source)} classes ({some}); "
            "fine-tune it on this data first (`vitlab finetune`)"
        )
    return np.array([positions[name] for name in of_source])
