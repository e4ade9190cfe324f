"""From a batch on the host to what an update takes: images varied, normalised and mixed on the device, part by part.

Shapes: B images, H W height and width, K classes.
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
from vitlab.training.step import Part


@dataclass(frozen=True)
class Cutter:
    """Cuts every batch alike.

    Attributes:
        recipe: how images are varied and mixed.
        preprocessing: the model's.
        classes: K.
        runtime: where to.
        count: parts of this process's images.
    """

    recipe: Recipe
    preprocessing: Preprocessing
    classes: int
    runtime: Runtime
    count: int

    def parts(self, batch: Batch) -> list[partial[Part]]:
        """The parts, each of which is brought to the device when it is called for; some may be empty."""
        if self.recipe.augmentation.mixes:
            images_BCHW, targets_BK = self._mixed(batch)
            cut = zip(images_BCHW.tensor_split(self.count), targets_BK.tensor_split(self.count), strict=True)
            return [partial(_as_it_is, images, targets) for images, targets in cut]
        cuts = batch.images_BHWC.tensor_split(self.count), batch.labels_B.tensor_split(self.count)
        begin, made = 0, []
        for images_BHWC, labels_B in zip(*cuts, strict=True):
            variations = batch.variations[begin : begin + len(labels_B)]
            made.append(partial(self._on_device, images_BHWC, labels_B, variations))
            begin += len(labels_B)
        return made

    def _on_device(self, images_BHWC: Tensor, labels_B: Tensor, variations: Sequence[Variation]) -> Part:
        device = self.runtime.device
        images_BHWC = images_BHWC.to(device, non_blocking=True)
        if variations:
            images_BHWC = vary_batch(images_BHWC, variations)
        images_BCHW = loader.normalise(images_BHWC, self.preprocessing, device)
        return images_BCHW, labels_B.to(device, non_blocking=True)

    def _mixed(self, batch: Batch) -> Part:
        """Mixup and CutMix of this process's images: pairs are of neighbours, and the shares cut none apart."""
        share = self.recipe.batch_size // self.runtime.ranks
        images_BCHW, labels_B = self._on_device(batch.images_BHWC, batch.labels_B, batch.variations)
        return mix_batch(
            images_BCHW, labels_B, self.classes, self.recipe.augmentation,
            seed=self.recipe.seed, step=batch.step, batch_size=share,
            positions_N=batch.positions_B.numpy() - self.runtime.rank * share,
        )  # fmt: skip


def _as_it_is(images_BCHW: Tensor, targets: Tensor) -> Part:
    return images_BCHW, targets
