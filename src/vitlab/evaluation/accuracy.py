"""How often a model is right, each image counted once. Legend: N = images, K = classes of the model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from vitlab.data import loader
from vitlab.data.selections import select
from vitlab.data.sources import Bad, Source
from vitlab.errors import UserError
from vitlab.models.build import probabilities
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import Runtime, all_reduce_on_device, all_reduce_sum, raise_on_all

SYNSET = re.compile(r"n\d{8}")
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Accuracy:
    """A model's answers on a data set.

    Attributes:
        labels_N: the true class of every image, as the model numbers its classes.
        probabilities_NK: softmax of the logits, float32.
        indices_N: the images' places in their source; 0 .. N - 1 where none was left out.
        left_out: how many images could not be read.
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
        """How many images were seen."""
        return len(self.labels_N)

    @property
    def predictions_N(self) -> np.ndarray:  # noqa: N802
        """The most probable class of every image; of equal ones the lower number."""
        best_N: np.ndarray = self.probabilities_NK.argmax(axis=1)
        return best_N

    def top(self, k: int) -> float:
        """Share of images whose class is among the k most probable; of equal ones the lower number comes first."""
        return self.right(k) / self.images

    def right(self, k: int = 1) -> int:
        """How many images have their class among the k most probable."""
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
        """Counts (K, K): true class by predicted class."""
        classes = self.probabilities_NK.shape[1]
        counts_KK = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts_KK, (self.labels_N, self.predictions_N), 1)
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
    bad_images: Bad = "refuse",
    shared: bool = False,
) -> Accuracy:
    """The model's answers on every image of `source`.

    Args:
        model: (batch, 3, height, width) -> (batch, classes).
        source: the images; its classes must all be known to the model.
        preprocessing: what the model's images go through.
        runtime: device, precision and processes.
        classes: names of the model's classes; labels are matched by name. None takes the source's numbering.
        batch_size: images at a time; it does not change the result beyond rounding.
        bad_images: whether an image that cannot be read ends it, or is left out and counted.
        shared: whether the runtime's processes share the batches out. All of them must call then, and all have the
            whole result, bit for bit what one process alone has. Otherwise this process does everything.

    Raises:
        UserError: the source has a class that the model does not have, or an image cannot be read (in all processes).
    """
    numbers_K = numbering(source.classes, classes)
    labels_N = numbers_K[source.labels_N]
    sharing = runtime if shared else replace(runtime, rank=0, ranks=1)
    was_training = model.training
    model.eval().to(runtime.device)
    seen_N = torch.zeros(len(source), dtype=torch.float32)
    probabilities_NK = torch.zeros(0)
    with raise_on_all(sharing), torch.inference_mode(), runtime.autocast():
        for batch in _batches(source, preprocessing, sharing, batch_size, bad_images):
            logits_BK = model(loader.normalise(batch.images_BHWC, preprocessing, runtime.device))
            if not len(probabilities_NK):
                probabilities_NK = torch.zeros(len(source), logits_BK.shape[1])
            probabilities_NK[batch.indices_B] = probabilities(logits_BK)
            seen_N[batch.indices_B] = 1
    model.train(was_training)
    return _gathered(source, labels_N, probabilities_NK, seen_N, sharing)


def _batches(
    source: Source, preprocessing: Preprocessing, sharing: Runtime, batch_size: int, bad_images: Bad
) -> Iterator[loader.Batch]:
    """This process's batches: each ranks-th of all, so that who computes a batch does not change what is in it."""
    if sharing.ranks == 1:
        yield from loader.evaluation_batches(source, preprocessing, batch_size=batch_size, bad_images=bad_images)
        return
    places = np.arange(len(source))
    own_M = places[places // batch_size % sharing.ranks == sharing.rank]
    if not len(own_M):
        return
    part = select(source.name, [(source, own_M.tolist())])
    for batch in loader.evaluation_batches(part, preprocessing, batch_size=batch_size, bad_images=bad_images):
        yield replace(batch, indices_B=torch.from_numpy(own_M)[batch.indices_B])


def _gathered(
    source: Source, labels_N: np.ndarray, probabilities_NK: Tensor, seen_N: Tensor, sharing: Runtime
) -> Accuracy:
    """The answers of all processes; each image has one alone, so that sums with zeros are exact."""
    if sharing.ranks > 1:
        outputs, processes = all_reduce_sum(sharing, (probabilities_NK.shape[-1], float(len(probabilities_NK) > 0)))
        if not len(probabilities_NK):
            probabilities_NK = torch.zeros(len(source), round(outputs / max(1.0, processes)))
        all_reduce_on_device(sharing, probabilities_NK)
        all_reduce_on_device(sharing, seen_N)
    if not bool(seen_N.any()):
        raise UserError(f"{source.name}: none of its {len(source):,} images can be read")
    kept_N = seen_N.numpy() > 0
    if labels_N.max() >= probabilities_NK.shape[1] or labels_N.min() < 0:
        raise UserError(
            f"{source.name} has {len(source.classes)} classes and the model has {probabilities_NK.shape[1]}; "
            "fine-tune the model on this data first (`vitlab finetune`)"
        )
    return Accuracy(
        labels_N[kept_N], probabilities_NK.numpy()[kept_N], np.flatnonzero(kept_N), int(len(kept_N) - kept_N.sum())
    )


def numbering(of_source: tuple[str, ...], of_model: tuple[str, ...] | None) -> np.ndarray:
    """Source's class number -> model's class number, by name.

    ImageNet's thousand classes have one order for everybody, that of the sorted synsets, whatever a model calls them.

    Raises:
        UserError: the model lacks a class.
    """
    if of_model is None or of_model == of_source:
        return np.arange(len(of_source))
    has_own_names = len(of_model) == IMAGENET_CLASSES and not _are_synsets(of_model)
    if _are_imagenets(of_source) and (has_own_names or _are_imagenets(of_model)):
        return np.arange(IMAGENET_CLASSES)
    positions = {name: number for number, name in enumerate(of_model)}
    unknown = [name for name in of_source if name not in positions]
    if unknown:
        some = ", ".join(unknown[:5])
        raise UserError(
            f"the model does not know {len(unknown)} of the data's {len(of_source)} classes ({some}); "
            "fine-tune it on this data first (`vitlab finetune`)"
        )
    return np.array([positions[name] for name in of_source])


def _are_imagenets(classes: tuple[str, ...]) -> bool:
    """Whether these are ImageNet's classes in its own order: its synsets, or mere numbers."""
    numbers = classes == tuple(map(str, range(IMAGENET_CLASSES)))
    return numbers or (len(classes) == IMAGENET_CLASSES and _are_synsets(classes) and list(classes) == sorted(classes))


def _are_synsets(classes: tuple[str, ...]) -> bool:
    return all(SYNSET.fullmatch(name) for name in classes)
