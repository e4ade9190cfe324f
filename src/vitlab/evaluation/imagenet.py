"""ImageNet's other measures: reassessed labels (ReaL), and ObjectNet's classes. Legend: N = images, K = classes."""

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
class Counted:
    """An accuracy over some of the images.

    Attributes:
        right: how many count as right.
        images: how many count.
        excluded: how many do not count, for want of a label.
        right_of_five: how many have a right class among the five most probable; none where it is not defined.
    """

    right: int
    images: int
    excluded: int
    right_of_five: int | None = None

    @property
    def share(self) -> float:
        """The accuracy."""
        return self.right / self.images


def real_accuracy(measured: Accuracy, source: Source, real_labels: Sequence[Sequence[int]]) -> Counted:
    """ImageNet-ReaL (Beyer et al. 2020): right is a prediction among its image's labels.

    Images without a label do not count.

    Args:
        measured: answers of a model with ImageNet's classes.
        source: ImageNet's validation images, or some of them, under their own names.
        real_labels: a list of labels for each of the 50,000 images; see `data.imagenet.read_real_labels`.

    Raises:
        UserError: the model has other classes, an image has another name, or no image has a label.
    """
    rights = [right for right in real_rights(measured, source, real_labels) if right is not None]
    if not rights:
        raise UserError(f"ReaL: none of the {measured.images:,} images of {source.name} has a label in it")
    return Counted(sum(rights), len(rights), measured.images - len(rights))


def real_rights(measured: Accuracy, source: Source, real_labels: Sequence[Sequence[int]]) -> list[bool | None]:
    """Whether each image counts as right in `real_accuracy`; none where it does not count.

    Raises:
        UserError: the model has other classes, or an image has another name.
    """
    _check_outputs(measured, "ReaL")
    found: list[bool | None] = []
    for index, prediction in zip(measured.indices_N.tolist(), measured.predictions_N.tolist(), strict=True):
        labels = real_labels[_validation_number(source, index, len(real_labels)) - 1]
        found.append(prediction in labels if labels else None)
    return found


def objectnet_accuracy(measured: Accuracy, source: Source, mapping: ObjectNetMapping) -> Counted:
    """ObjectNet (Barbu et al. 2019) over the classes that it shares with ImageNet.

    A prediction counts as ObjectNet's class that its ImageNet class belongs to, and as wrong where it belongs to none;
    so do the five most probable ones. Images of classes that are not shared are left out.

    Args:
        measured: answers of a model with ImageNet's classes; its labels are ObjectNet's.
        source: ObjectNet's images.
        mapping: which ImageNet classes each shared class has.

    Raises:
        UserError: the model has other classes, or no image has a shared class.
    """
    _check_outputs(measured, "ObjectNet")
    class_K = objectnet_classes(source, mapping)
    counted_N = np.isin(measured.labels_N, class_K)
    images = int(counted_N.sum())
    if not images:
        raise UserError(
            f"ObjectNet: no image of {source.name} has a class that ImageNet has too; is the mapping right?"
        )
    labels_M1 = measured.labels_N[counted_N, None]
    highest_M5 = np.argsort(-measured.probabilities_NK[counted_N], axis=1, kind="stable")[:, :5]
    right_M5 = class_K[highest_M5] == labels_M1
    return Counted(int(right_M5[:, 0].sum()), images, measured.images - images, int(right_M5.any(axis=1).sum()))


def objectnet_classes(source: Source, mapping: ObjectNetMapping) -> np.ndarray:
    """The number of ObjectNet's class that each of ImageNet's (K,) belongs to; -1 where it belongs to none."""
    class_K = np.full(IMAGENET_CLASSES, -1)
    for number, name in enumerate(source.classes):
        class_K[list(mapping.get(name, ()))] = number
    return class_K


def _check_outputs(measured: Accuracy, what: str) -> None:
    if measured.probabilities_NK.shape[1] != IMAGENET_CLASSES:
        outputs = measured.probabilities_NK.shape[1]
        raise UserError(f"{what}: the model has {outputs:,} outputs; give one with ImageNet's 1,000 classes")


def _validation_number(source: Source, index: int, images: int) -> int:
    """The number in an image's own name, from 1."""
    found = VALIDATION_NAME.search(source.key(index))
    if found is None or not 1 <= int(found[1]) <= images:
        raise UserError(
            f"ReaL: {source.key(index)} is not named as ImageNet's validation images are (ILSVRC2012_val_00000001.JPEG)"
        )
    return int(found[1])
