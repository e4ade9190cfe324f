"""Mixup and CutMix: images of a batch mixed with one another, and their targets with them.

Who is mixed with whom, and how much, is a function of (seed, step, position in the global batch). Positions are taken
in pairs (0, 1), (2, 3), ..., and the last three of an odd batch in a ring: each image is mixed with the next of its
group, so that each image serves as the other one exactly once, as in a rolled batch. A rank that holds whole groups
needs no other rank's images, and any number of ranks mixes a global batch alike; with a roll over the whole batch
every rank's last image would need the next rank's first, and with a roll over each rank's share the pairs would depend
on the number of ranks. The order of samples is shuffled again in each epoch, so neighbours change.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.order import MASK_64
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation

MIXING_STREAM = 0x6D6978  # keeps these draws apart from other uses of the same seed


Box = tuple[int, int, int, int]  # (top, left, bottom, right)


def draw_mix(augmentation: Augmentation, size: tuple[int, int], seed: int, step: int) -> tuple[float, Box | None]:
    """Draws how the batch of one step is mixed; where both are on, Mixup or CutMix with even odds.

    Mixup (Zhang et al., 2018): lambda ~ Beta(mixup, mixup), one for the batch, and max(lambda, 1 - lambda) as in
    big_vision, so that each image stays the larger part of its mixture. CutMix (Yun et al., 2019): a box of 1 - lambda
    of the image, lambda ~ Beta(cutmix, cutmix), with the image's proportions and its centre anywhere, cut off at
    the image's edges; `own` is the share that is left outside of it.

    Args:
        augmentation: the recipe's; `mixup` or `cutmix` is on.
        size: height and width of the images.
        seed: the run's.
        step: the batch's number, >= 0.

    Returns:
        (own, box): the share of its own target that each image keeps, 0 to 1; what CutMix takes from the other image,
        None for Mixup.
    """
    assert augmentation.mixes
    key = np.array([seed & MASK_64, MIXING_STREAM], dtype=np.uint64)
    rng = np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, step, 0], dtype=np.uint64)))
    cut = augmentation.mixup == 0 or (augmentation.cutmix > 0 and rng.random() < 0.5)
    if not cut:
        share = float(rng.beta(augmentation.mixup, augmentation.mixup))
        return max(share, 1 - share), None
    share = float(rng.beta(augmentation.cutmix, augmentation.cutmix))
    height, width = size
    cut_height, cut_width = int(height * (1 - share) ** 0.5), int(width * (1 - share) ** 0.5)
    row, column = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(row - cut_height // 2, 0), max(column - cut_width // 2, 0)
    bottom, right = min(row + cut_height // 2, height), min(column + cut_width // 2, width)
    return 1 - (bottom - top) * (right - left) / (height * width), (top, left, bottom, right)


def check_ranks(batch_size: int, ranks: int) -> None:
    """Checks, before a run starts, that no pair is divided when each rank takes an equal share of the global batch.

    Raises:
        UserError: there are several ranks, and their shares are odd in size.
    """
    if ranks > 1 and batch_size % (2 * ranks):
        raise UserError(
            f"batch_size is {batch_size} over {ranks} ranks: Mixup and CutMix mix images in pairs, so give a multiple "
            f"of {2 * ranks}"
        )


def partners(batch_size: int, positions_N: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """For each row that is there, the row that it is mixed with (see the groups in the module's docstring).

    Args:
        batch_size: of the global batch.
        positions_N: the rows' positions in the global batch; None means 0 .. batch_size - 1.

    Returns:
        (N,) rows; an image whose other one is missing, because it could not be read, is paired with itself.
    """
    positions_N = np.arange(batch_size) if positions_N is None else positions_N
    others = np.arange(batch_size) ^ 1
    if batch_size % 2:
        first = max(batch_size - 3, 0)
        others[first:] = np.roll(np.arange(first, batch_size), -1)
    rows = np.full(batch_size, -1)
    rows[positions_N] = np.arange(len(positions_N))
    found_N = rows[others[positions_N]]
    return np.where(found_N < 0, np.arange(len(positions_N)), found_N)


def mix_batch(
    images_BCHW: Tensor, labels: Tensor, classes: int, augmentation: Augmentation, *,
    seed: int, step: int, batch_size: int | None = None, positions_N: NDArray[np.int64] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mixes a rank's share of a training batch by Mixup or CutMix.

    Args:
        images_BCHW: floating numbers, after normalisation (mixing before it would be the same).
        labels: (B,) integer classes, or (B, K) target probabilities.
        classes: K.
        augmentation: the recipe's; `mixup` or `cutmix` is on.
        seed: the run's.
        step: the batch's number.
        batch_size: of the global batch; None means B.
        positions_N: the rows' positions in the global batch; None means all.

    Returns:
        (images_BCHW, targets_BK): new tensors on the same device; targets are float32 and each row's sum is kept
        (1 for classes). Label smoothing, if any, is the loss's.
    """
    own, box = draw_mix(augmentation, (images_BCHW.shape[2], images_BCHW.shape[3]), seed, step)
    others_B = torch.from_numpy(partners(batch_size or len(images_BCHW), positions_N)).to(images_BCHW.device)
    assert len(others_B) == len(images_BCHW)
    targets_BK = torch.nn.functional.one_hot(labels, classes) if labels.ndim == 1 else labels
    targets_BK = targets_BK.to(torch.float32)
    mixed_BK = targets_BK * own + targets_BK[others_B] * (1 - own)
    if box is None:
        return images_BCHW * own + images_BCHW[others_B] * (1 - own), mixed_BK
    top, left, bottom, right = box
    mixed_BCHW = images_BCHW.clone()
    mixed_BCHW[..., top:bottom, left:right] = images_BCHW[others_B, :, top:bottom, left:right]
    return mixed_BCHW, mixed_BK
