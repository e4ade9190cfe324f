"""Batches: decoded and varied by threads, in an order that a step number alone determines."""

from collections.abc import Callable, Generator, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.assembly import Batch as Batch  # part of this module's face
from vitlab.data.assembly import BatchIndices, Make, MakeAll, assemble
from vitlab.data.augmentation.augment import Variation, crop_and_draw, vary
from vitlab.data.block_cache import BlockCache
from vitlab.data.images import RGB, open_picture
from vitlab.data.in_memory import InMemoryImages, PictureCache, fit_in_memory
from vitlab.data.order import SampleGenerators, sample_order, shard_order
from vitlab.data.resize import prepare
from vitlab.data.sources import Bad, Source
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

Order = Literal["global", "shards"]
Int64s = NDArray[np.int64]
OrderOf = Callable[[Int64s], tuple[Int64s, Int64s]]  # positions -> (epochs, indices)

CACHE_BYTES = 256 * 2**20
SHARDS_AT_A_TIME = 8
STEPS_AT_A_TIME = 16  # whose order is computed at once: for a small batch alone it would cost as much
BLOCK_CACHE_BYTES = 2**30  # of shards behind URLs: as many shards of 128 MiB


def training_batches(
    source: Source, preprocessing: Preprocessing, augmentation: Augmentation, *,
    batch_size: int, seed: int, steps: int, first_step: int = 0, rank: int = 0, ranks: int = 1, order: Order = "global",
    workers: int | None = None, bad_images: Bad = "refuse", pin_memory: bool = False,
) -> Generator[Batch]:  # fmt: skip
    """The batches of steps first_step .. steps - 1: epoch after epoch, each in an order of its own.

    A batch is a function of (source, preprocessing, augmentation, batch_size, seed, order, step) alone, whatever the
    number of workers and wherever the stream is entered. It may span two epochs. Closing the iterator ends its threads.

    Args:
        source: the training images.
        preprocessing: the model's.
        augmentation: how each image is varied.
        batch_size: images per batch over all ranks, at most `len(source)`, a multiple of `ranks`.
        seed: of the order and of the augmentation.
        steps: where the run ends.
        first_step: where to start; the number of steps already done.
        rank: which share of each batch is wanted: rank r gets the rows r * B / ranks to (r + 1) * B / ranks.
        ranks: in how many shares a batch is given out.
        order: "global" shuffles the entire source; "shards" reads tar shards in a shuffled order, and shuffles within
            a few of them at a time (see `shard_order`).
        workers: decoding threads; 0 decodes in the caller's thread, None means one per processor.
        bad_images: "refuse" ends the stream at an image that cannot be read, "skip" lists it in `Batch.skipped`.
        pin_memory: whether images are put where a CUDA device can fetch them by itself.

    Raises:
        UserError: at once, where the source has fewer images than a batch, or order="shards" and no shards; from the
            iterator, where an image cannot be read.
    """
    _check_size(source, batch_size, ranks)
    wanted = _share_of_batches(_order_of(source, order, seed), range(first_step, steps), batch_size, rank, ranks)
    reading = source.with_block_cache(BlockCache(BLOCK_CACHE_BYTES)) if order == "shards" else source
    make = _training_images(reading, preprocessing, augmentation, seed)
    make_all = _at_once(reading, preprocessing, augmentation, seed) if workers == 0 else None
    return assemble(
        wanted, make, source.labels_N, preprocessing.size,
        workers=workers, bad_images=bad_images, pin_memory=pin_memory, make_all=make_all,
    )  # fmt: skip


def _check_size(source: Source, batch_size: int, ranks: int) -> None:
    assert batch_size % ranks == 0
    if len(source) < batch_size:
        raise UserError(
            f"{source.name}: its {len(source):,} images are fewer than a batch of {batch_size:,}; "
            f"set a smaller one with --set batch_size={len(source)}"
        )


def _order_of(source: Source, order: Order, seed: int) -> OrderOf:
    """Which (epoch, index) stands at each position of the endless stream of epochs."""
    if order == "global":
        return lambda positions_N: sample_order(positions_N, len(source), seed)
    if source.shards_N is None:
        raise UserError(
            f"{source.name}: data.order=shards needs tar shards; leave it out, or make some with `vitlab data pack`"
        )
    counts = np.bincount(source.shards_N)
    sizes = counts[counts > 0].tolist()
    by_shard_N = np.argsort(source.shards_N, kind="stable")

    def order_of(positions_N: Int64s) -> tuple[Int64s, Int64s]:
        epochs_N, places_N = shard_order(positions_N, sizes, seed, SHARDS_AT_A_TIME)
        return epochs_N, by_shard_N[places_N]

    return order_of


def _share_of_batches(
    order_of: OrderOf, steps: range, batch_size: int, rank: int, ranks: int
) -> Iterator[BatchIndices]:
    """What a rank's rows of each step's batch hold."""
    assert 0 <= rank < ranks
    share = batch_size // ranks
    for first in range(0, len(steps), STEPS_AT_A_TIME):
        some = steps[first : first + STEPS_AT_A_TIME]
        positions_SB = np.array(some)[:, None] * batch_size + rank * share + np.arange(share)
        epochs_N, indices_N = order_of(positions_SB.ravel())
        rows = zip(some, indices_N.reshape(positions_SB.shape), epochs_N.reshape(positions_SB.shape), strict=True)
        for step, indices_B, epochs_B in rows:
            yield BatchIndices(step, indices_B, epochs_B, rank * share)


def _training_images(source: Source, preprocessing: Preprocessing, augmentation: Augmentation, seed: int) -> Make:
    """Makes one varied image; small ones are decoded once."""
    pictures = PictureCache(source, preprocessing.size, CACHE_BYTES)
    generators = SampleGenerators(seed)

    def make(epoch: int, index: int) -> tuple[RGB, Variation | None]:
        rng = generators.of(epoch, index)
        image_HWC, variation = crop_and_draw(pictures.picture(index), augmentation, preprocessing, rng)
        return (image_HWC, variation) if augmentation.where == "device" else (vary(image_HWC, variation), None)

    return make


def _at_once(source: Source, preprocessing: Preprocessing, augmentation: Augmentation, seed: int) -> MakeAll | None:
    """Makes all images of a batch at once, where they are small enough to be kept in memory."""
    if augmentation.where == "device" or not fit_in_memory(source, preprocessing, augmentation, CACHE_BYTES):
        return None
    return InMemoryImages(source, preprocessing, augmentation, seed).fill


def evaluation_batches(
    source: Source, preprocessing: Preprocessing, *,
    batch_size: int, workers: int | None = None, bad_images: Bad = "refuse",
) -> Generator[Batch]:  # fmt: skip
    """Every image once, in the source's order, prepared without variation; the last batch may be smaller.

    Args:
        source: the images.
        preprocessing: the model's.
        batch_size: images per batch.
        workers: decoding threads; 0 decodes in the caller's thread, None means one per processor.
        bad_images: as for training.

    Raises:
        UserError: from the iterator, where an image cannot be read and is to be refused.
    """

    def wanted() -> Iterator[BatchIndices]:
        for step, start in enumerate(range(0, len(source), batch_size)):
            indices_B = np.arange(start, min(start + batch_size, len(source)))
            yield BatchIndices(step, indices_B, np.zeros_like(indices_B))

    def make(epoch: int, index: int) -> tuple[RGB, None]:
        sample = source.read(index)
        return prepare(open_picture(sample.data, sample.name).pixels(), preprocessing), None

    return assemble(wanted(), make, source.labels_N, preprocessing.size, workers=workers, bad_images=bad_images)


def normalise(
    images_BHWC: Tensor,
    preprocessing: Preprocessing,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Images as the model takes them: (value / 255 - mean) / std per channel, in float32 on the device.

    Args:
        images_BHWC: uint8 RGB; sent to the device as bytes, a quarter of their size as numbers.
        preprocessing: gives mean and std; the default range is the paper's [-1, 1].
        device: where the result lies.
        dtype: of the result.

    Returns:
        images_BCHW, contiguous.
    """
    mean_C = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
    std_C = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)
    images_BCHW = images_BHWC.to(device, non_blocking=True).permute(0, 3, 1, 2)
    numbers_BCHW = images_BCHW.to(torch.float32, memory_format=torch.contiguous_format)
    return numbers_BCHW.div_(255).sub_(mean_C).div_(std_C).to(dtype)
