"""Accuracy of a classifier, each image counted once, and its table, as training and `vitlab evaluate` store it.

Legend: N = images of the data set, B = images of a batch, M = images of this process, K = classes of the model.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.data import loader
from vitlab.data.sources import Bad, Source, select
from vitlab.errors import UserError
from vitlab.models.build import probabilities
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.results import Cell, Headline, ResultTable, percent
from vitlab.runtime import Runtime, all_reduce_on_device, all_reduce_sum, raise_on_all

SYNSET = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000
MAX_ROWS = 20  # classes; with more the table has only the row of all images, but its numbers have every class
MAX_DENSE = 100  # classes; with more the confusion matrix is stored as its nonzero entries


@dataclass(frozen=True)
class Accuracy:
    """A model's predictions on a data set, and the metrics computed from them.

    Attributes:
        labels_N: the true class of every image, in the model's class numbers.
        probabilities_NK: softmax of the logits, float32.
        indices_N: the images' indices in their source; 0 .. N - 1 where none was skipped.
        left_out: how many images were skipped because they could not be read.
    """

    labels_N: np.ndarray
    probabilities_NK: np.ndarray
    indices_N: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    left_out: int = 0

    def __post_init__(self) -> None:
        if len(self.indices_N) != len(self.labels_N):
            object.__setattr__(self, "indices_N", np.arange(len(self.labels_N)))

    @property
    def images(self) -> int:
        """How many images were evaluated."""
        return len(self.labels_N)

    @property
    def predictions_N(self) -> np.ndarray:  # noqa: N802
        """The most probable class of every image; ties go to the lower class number."""
        best_N: np.ndarray = self.probabilities_NK.argmax(axis=1)
        return best_N

    def top(self, k: int) -> float:
        """Top-k accuracy: the share of images whose true class is among the k most probable ones."""
        return self.correct(k) / self.images

    def correct(self, k: int = 1) -> int:
        """How many images have their true class among the k most probable; ties go to the lower class number."""
        own_N1 = np.take_along_axis(self.probabilities_NK, self.labels_N[:, None], axis=1)
        lower_NK = np.arange(self.probabilities_NK.shape[1]) < self.labels_N[:, None]
        before_NK = (self.probabilities_NK > own_N1) | ((self.probabilities_NK == own_N1) & lower_NK)
        return int((before_NK.sum(axis=1) < k).sum())

    @property
    def cross_entropy(self) -> float:
        """Mean of -log(probability of the true class), in nats."""
        own_N = np.take_along_axis(self.probabilities_NK, self.labels_N[:, None], axis=1)[:, 0]
        return float(-np.log(np.maximum(own_N, np.finfo(np.float32).tiny)).mean())

    def confusion(self) -> np.ndarray:
        """The confusion matrix (K, K): counts by true class (row) and predicted class (column)."""
        classes = self.probabilities_NK.shape[1]
        counts_KK = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts_KK, (self.labels_N, self.predictions_N), 1)
        return counts_KK

    def per_class(self) -> list[float | None]:
        """Top-1 accuracy of each class; None for a class without images."""
        counts_KK = self.confusion()
        totals_K = counts_KK.sum(axis=1)
        return [float(counts_KK[k, k] / total) if total else None for k, total in enumerate(totals_K)]


@contextmanager
def evaluating(model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Evaluation mode on the runtime's device and in its precision, without gradients; the mode is restored after."""
    was_training = model.training
    model.eval().to(runtime.device)
    try:
        with torch.inference_mode(), runtime.autocast():
            yield
    finally:
        model.train(was_training)


def measure(
    model: nn.Module,
    source: Source,
    preprocessing: Preprocessing,
    runtime: Runtime,
    *,
    classes: tuple[str, ...] | None = None,
    batch_size: int = 128,
    bad_images: Bad = "refuse",
    distributed: bool = False,
) -> Accuracy:
    """The model's predictions on every image of `source`.

    Args:
        model: (batch, 3, height, width) -> (batch, classes).
        source: the images; the model must have all of its classes.
        preprocessing: resizing and normalisation of the images.
        runtime: device, precision and processes.
        classes: names of the model's classes; labels are matched by name. None: the source's own numbers.
        batch_size: images per batch; it does not change the result beyond rounding.
        bad_images: "refuse" raises at an image that cannot be read, "skip" leaves it out and counts it.
        distributed: split the batches over the runtime's processes. All of them must then call this, and each
            returns the complete result, bit for bit that of a single process. False: this process does all of it.

    Raises:
        UserError: the model lacks one of the classes, or an image cannot be read (in all processes).
    """
    labels_N = match_classes(source.classes, classes)[source.labels_N]
    own = runtime if distributed else replace(runtime, rank=0, ranks=1)
    probabilities_NK, seen_N = torch.zeros(0), torch.zeros(len(source), dtype=torch.float32)
    with raise_on_all(own), evaluating(model, runtime):
        for batch in _batches(source, preprocessing, own, batch_size, bad_images):
            images_BCHW = loader.normalise(batch.images_BHWC, preprocessing, runtime.device)
            probabilities_BK = probabilities(model(images_BCHW))
            if not len(probabilities_NK):
                probabilities_NK = torch.zeros(len(source), probabilities_BK.shape[1])
            probabilities_NK[batch.indices_B] = probabilities_BK
            seen_N[batch.indices_B] = 1
    return _gathered(source, labels_N, probabilities_NK, seen_N, own)


def _batches(
    source: Source, preprocessing: Preprocessing, runtime: Runtime, batch_size: int, bad_images: Bad
) -> Iterator[loader.Batch]:
    """This process's batches: batch i goes to rank i modulo ranks, so that the content of a batch never changes."""
    if runtime.ranks == 1:
        yield from loader.evaluation_batches(source, preprocessing, batch_size=batch_size, bad_images=bad_images)
        return
    indices_N = np.arange(len(source))
    own_M = indices_N[indices_N // batch_size % runtime.ranks == runtime.rank]
    if not len(own_M):
        return
    subset = select(source.name, [(source, own_M.tolist())])
    for batch in loader.evaluation_batches(subset, preprocessing, batch_size=batch_size, bad_images=bad_images):
        yield replace(batch, indices_B=torch.from_numpy(own_M)[batch.indices_B])


def _gathered(
    source: Source, labels_N: np.ndarray, probabilities_NK: Tensor, seen_N: Tensor, runtime: Runtime
) -> Accuracy:
    """The predictions of all processes; each image was seen by one of them, so adding the others' zeros is exact."""
    if runtime.ranks > 1:
        outputs, processes = all_reduce_sum(runtime, (probabilities_NK.shape[-1], float(len(probabilities_NK) > 0)))
        if not len(probabilities_NK):
            probabilities_NK = torch.zeros(len(source), round(outputs / max(1.0, processes)))
        all_reduce_on_device(runtime, probabilities_NK)
        all_reduce_on_device(runtime, seen_N)
    if not bool(seen_N.any()):
        raise UserError(f"{source.name}: none of its {len(source):,} images can be read")
    kept_N = seen_N.numpy() > 0
    if labels_N.max() >= probabilities_NK.shape[1] or labels_N.min() < 0:
        raise UserError(
            f"{source.name} has {len(source.classes)} classes and the model has {probabilities_NK.shape[1]}; "
            "fine-tune the model on this data first (`vitlab finetune`)"
        )
    return Accuracy(labels_N[kept_N], probabilities_NK.numpy()[kept_N], np.flatnonzero(kept_N), int((~kept_N).sum()))


def match_classes(of_source: tuple[str, ...], of_model: tuple[str, ...] | None) -> np.ndarray:
    """The model's class number for each of the source's classes, matched by name.

    ImageNet's 1,000 classes always have the order of the sorted synsets, whatever names a model has for them.

    Raises:
        UserError: the model lacks a class.
    """
    if of_model is None or of_model == of_source:
        return np.arange(len(of_source))
    has_own_names = len(of_model) == IMAGENET_CLASSES and not _are_synsets(of_model)
    if _are_imagenet_classes(of_source) and (has_own_names or _are_imagenet_classes(of_model)):
        return np.arange(IMAGENET_CLASSES)
    positions = {name: number for number, name in enumerate(of_model)}
    unknown = [name for name in of_source if name not in positions]
    if unknown:
        some = ", ".join(unknown[:5])
        raise UserError(
            f"the model lacks {len(unknown)} of the data's {len(of_source)} classes ({some}); "
            "fine-tune it on this data first (`vitlab finetune`)"
        )
    return np.array([positions[name] for name in of_source])


def _are_imagenet_classes(classes: tuple[str, ...]) -> bool:
    """Whether these are ImageNet's classes in its own order, named by synsets or by numbers."""
    numbers = classes == tuple(map(str, range(IMAGENET_CLASSES)))
    return numbers or (len(classes) == IMAGENET_CLASSES and _are_synsets(classes) and list(classes) == sorted(classes))


def _are_synsets(classes: tuple[str, ...]) -> bool:
    return all(SYNSET.fullmatch(name) for name in classes)


def accuracy_table(measured: Accuracy, data: str, classes: Sequence[str], dataset: str) -> ResultTable:
    """Top-1 accuracy on all images, and by class if there are few.

    Args:
        measured: the predictions.
        data: the images, as the title names them.
        classes: names of the model's outputs.
        dataset: the name by which reports know the data set, see `known_as`.
    """
    rows: list[list[Cell]] = [["all", measured.images, percent(measured.top(1))]]
    counts_KK, by_class = measured.confusion(), measured.per_class()
    for name, top1, images in zip(classes, by_class, counts_KK.sum(axis=1).tolist(), strict=True):
        if top1 is not None and len(classes) <= MAX_ROWS:
            rows.append([name, images, percent(top1)])
    return ResultTable(
        title=f"Accuracy on {data}",
        summary=f"{percent(measured.top(1))} of {measured.images:,} test images are classified correctly.",
        columns=["class", "images", "top-1 accuracy"],
        rows=rows,
        headline=[Headline(f"top-1 accuracy on {data}", f"{100 * measured.top(1):.2f}", "%")],
        numbers={
            "dataset": dataset,
            "images": measured.images,
            "correct": measured.correct(),
            "top1": measured.top(1),
            **({"top5": measured.top(5)} if measured.probabilities_NK.shape[1] > 5 else {}),
            "cross_entropy": measured.cross_entropy,
            "classes": list(classes),
            "per_class": by_class,
            **_confusion(counts_KK),
        },
    )


def _confusion(counts_KK: np.ndarray) -> dict[str, Any]:
    """The confusion matrix, true by predicted class; of many classes its nonzero [true, predicted, count]."""
    if len(counts_KK) <= MAX_DENSE:
        return {"confusion": counts_KK.tolist()}
    true, predicted = np.nonzero(counts_KK)
    return {"confusion_pairs": np.stack((true, predicted, counts_KK[true, predicted]), axis=1).tolist()}
