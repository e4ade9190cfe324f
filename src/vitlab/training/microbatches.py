"""From a batch to what an update takes: images varied, normalised and mixed, one microbatch at a time.

The batch is on the device already (see `data.prefetch`). Shapes: B images, H W height and width, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from vitlab.data import loader
from vitlab.data.augmentation.augment import Variation
from vitlab.data.augmentation.device_augment import vary_batch
from vitlab.data.augmentation.mixing import mix_batch
from vitlab.data.loader import Batch
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime
from vitlab.training.step import Microbatch


@dataclass(frozen=True)
class MicrobatchMaker:
    """Divides every batch of a run alike.

    Attributes:
        recipe: how images are varied and mixed.
        preprocessing: the model's.
        classes: K.
        runtime: the processes.
        count: microbatches that this process's share of a batch is divided into.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    classes: int
    runtime: Runtime
    count: int

    def of(self, batch: Batch) -> list[partial[Microbatch]]:
        """The microbatches, each of which is computed when it is called; some may be empty."""
        if self.recipe.augmentation.mixes:
            images_BCHW, targets_BK = self._mixed(batch)
            divided = zip(images_BCHW.tensor_split(self.count), targets_BK.tensor_split(self.count), strict=True)
            return [partial(_unchanged, images, targets) for images, targets in divided]
        begin, made = 0, []
        images, labels = batch.images_BHWC.tensor_split(self.count), batch.labels_B.tensor_split(self.count)
        for images_BHWC, labels_B in zip(images, labels, strict=True):
            variations = batch.variations[begin : begin + len(labels_B)]
            made.append(partial(self._varied, images_BHWC, labels_B, variations))
            begin += len(labels_B)
        return made

    def _varied(self, images_BHWC: Tensor, labels_B: Tensor, variations: Sequence[Variation]) -> Microbatch:
        if variations:
            images_BHWC = vary_batch(images_BHWC, variations)
        return loader.normalise(images_BHWC, self.preprocessing, images_BHWC.device), labels_B

    def _mixed(self, batch: Batch) -> Microbatch:
        """Mixup and CutMix of this process's images: pairs are of neighbours, which no division separates."""
        share = self.recipe.batch_size // self.runtime.ranks
        images_BCHW, labels_B = self._varied(batch.images_BHWC, batch.labels_B, batch.variations)
        return mix_batch(
            images_BCHW, labels_B, self.classes, self.recipe.augmentation,
            seed=self.recipe.seed, step=batch.step, batch_size=share,
            positions_N=batch.positions_B.numpy() - self.runtime.rank * share,
        )  # fmt: skip


def _unchanged(images_BCHW: Tensor, targets: Tensor) -> Microbatch:
    return images_BCHW, targets
