"""Accuracy with ImageNet's reassessed labels (ReaL), and on ObjectNet.

Legend: N = images, M = images that count, K = classes of the model.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vitlab.data.sources import Source
from vitlab.datasets.imagenet import ObjectNetMapping
from vitlab.errors import UserError
from vitlab.evaluation.accuracy import IMAGENET_CLASSES, Accuracy

VALIDATION_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\b")


@dataclass(frozen=True)
class SubsetAccuracy:
    """Accuracy on those images of a data set that have a label the model can predict.

    Attributes:
        correct: number of images classified correctly.
        images: number of images that count.
        excluded: number of images that do not count because they have no such label.
        correct_top5: number of images with a correct class among the five most probable; None where undefined.
    """

    correct: int
    images: int
    excluded: int
    correct_top5: int | None = None

    @property
    def top1(self) -> float:
        """The top-1 accuracy."""
        return self.correct / self.images


def real_accuracy(measured: Accuracy, source: Source, real_labels: Sequence[Sequence[int]]) -> SubsetAccuracy:
    """ImageNet-ReaL (Beyer et al. 2020): a prediction is correct if it is one of its image's labels.

    Images without a label do not count.

    Args:
        measured: predictions of a model with ImageNet's classes.
        source: ImageNet's validation images, or some of them, with their original file names.
        real_labels: a list of labels for each of the 50,000 images; see `datasets.imagenet.read_real_labels`.

    Raises:
        UserError: the model has other classes, an image has another name, or no image has a label.
    """
    counted = [correct for correct in real_correct(measured, source, real_labels) if correct is not None]
    if not counted:
        raise UserError(f"ReaL: none of the {measured.images:,} images of {source.name} has a label in it")
    return SubsetAccuracy(sum(counted), len(counted), measured.images - len(counted))


def real_correct(measured: Accuracy, source: Source, real_labels: Sequence[Sequence[int]]) -> list[bool | None]:
    """Whether each image is classified correctly, as `real_accuracy` counts it; None for an image without a label.

    Raises:
        UserError: the model has other classes, or an image has another name.
    """
    _check_outputs(measured, "ReaL")
    correct: list[bool | None] = []
    for index, prediction in zip(measured.indices_N.tolist(), measured.predictions_N.tolist(), strict=True):
        labels = real_labels[_validation_number(source, index, len(real_labels)) - 1]
        correct.append(prediction in labels if labels else None)
    return correct


def objectnet_accuracy(measured: Accuracy, source: Source, mapping: ObjectNetMapping) -> SubsetAccuracy:
    """ObjectNet (Barbu et al. 2019) over the classes that it shares with ImageNet.

    A predicted ImageNet class is mapped to the ObjectNet class it belongs to, and is wrong if it belongs to none;
    top-5 likewise. Images of classes that are not shared do not count.

    Args:
        measured: predictions of a model with ImageNet's classes; the labels are ObjectNet's.
        source: ObjectNet's images.
        mapping: the ImageNet classes of each shared class.

    Raises:
        UserError: the model has other classes, or no image has a shared class.
    """
    _check_outputs(measured, "ObjectNet")
    class_K = objectnet_classes(source, mapping)
    counted_N = np.isin(measured.labels_N, class_K)
    images = int(counted_N.sum())
    if not images:
        raise UserError(f"ObjectNet: no image of {source.name} has a class that ImageNet has too; check its mappings")
    labels_M1 = measured.labels_N[counted_N, None]
    top_M5 = np.argsort(-measured.probabilities_NK[counted_N], axis=1, kind="stable")[:, :5]
    correct_M5 = class_K[top_M5] == labels_M1
    top5 = int(correct_M5.any(axis=1).sum())
    return SubsetAccuracy(int(correct_M5[:, 0].sum()), images, measured.images - images, top5)


def objectnet_classes(source: Source, mapping: ObjectNetMapping) -> np.ndarray:
    """The ObjectNet class number of each ImageNet class (K,); -1 for a class that ObjectNet does not have."""
    class_K = np.full(IMAGENET_CLASSES, -1)
    for number, name in enumerate(source.classes):
        class_K[list(mapping.get(name, ()))] = number
    return class_K


def _check_outputs(measured: Accuracy, what: str) -> None:
    outputs = measured.probabilities_NK.shape[1]
    if outputs != IMAGENET_CLASSES:
        raise UserError(f"{what}: the model has {outputs:,} outputs; give one with ImageNet's 1,000 classes")


def _validation_number(source: Source, index: int, images: int) -> int:
    """The number in an image's file name, from 1."""
    match = VALIDATION_NAME.search(source.key(index))
    if match is None or not 1 <= int(match[1]) <= images:
        raise UserError(
            f"ReaL: {source.key(index)} is not the name of an ImageNet validation image (ILSVRC2012_val_00000001.JPEG)"
        )
    return int(match[1])
