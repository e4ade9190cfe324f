"""What happens to one image after its crop: mirroring, RandAugment, random erasing; drawn here, applied here or later.

Drawing and applying are apart so that the draws can be made on the host, sample by sample, and applied on the device,
batch by batch (`vitlab.data.augmentation.device_augment`), with the same pixels.
"""

from dataclasses import dataclass

import numpy as np

from vitlab.data.augmentation.erasing import Erasure, draw_erasure, erase
from vitlab.data.augmentation.randaugment import Operation, apply_operation, draw_operations
from vitlab.data.images import RGB
from vitlab.data.resize import mirror
from vitlab.recipes.augmentation import Augmentation


@dataclass(frozen=True, eq=False)
class Variation:
    """Everything that was drawn for one image after its crop, in the order of its use."""

    flip: bool = False
    operations: tuple[Operation, ...] = ()
    erasure: Erasure | None = None


def draw_variation(augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator) -> Variation:
    """Draws an image's variation: flip, RandAugment, erasing; what is switched off draws nothing.

    Args:
        augmentation: the recipe's.
        size: height and width of the cropped image.
        rng: the sample's own generator, after the crop's draws.
    """
    flip = draw_flip(augmentation, rng)
    operations = draw_operations(augmentation.randaugment_layers, augmentation.randaugment_magnitude, size, rng)
    return Variation(flip, operations, draw_erasure(augmentation.erase, size, rng))


def draw_flip(augmentation: Augmentation, rng: np.random.Generator) -> bool:
    """Whether an image is mirrored: every second one, where images are mirrored at all."""
    return augmentation.flip and bool(rng.random() < 0.5)


def vary(image_HWC: RGB, variation: Variation) -> RGB:
    """The cropped image after its variation: uint8 RGB of the same size."""
    if variation.flip:
        image_HWC = mirror(image_HWC)
    for operation in variation.operations:
        image_HWC = apply_operation(image_HWC, operation)
    return image_HWC if variation.erasure is None else erase(image_HWC, variation.erasure)
