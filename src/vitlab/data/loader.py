"""Batches: decoded and varied by threads, in an order that a step number alone determines."""

from collections.abc import Callable, Generator, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.assembly import Batch as Batch  # part of this module's face
from vitlab.data.assembly import Plan, assemble
from vitlab.data.augment import crop_and_draw
from vitlab.data.augmentation.variation import Variation, vary
from vitlab.data.block_cache import BlockCache
from vitlab.data.images import RGB, Picture, as_picture, decode, open_picture
from vitlab.data.in_memory import LightImages, is_light
from vitlab.data.order import SampleGenerators, sample_order
from vitlab.data.resize import prepare
from vitlab.data.shard_order import shard_order
from vitlab.data.sources import Bad, Source
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

Order = Literal["global", "shards"]
Int64s = NDArray[np.int64]

CACHE_BYTES = 256 * 2**20
SHARDS_AT_A_TIME = 8
STEPS_AT_A_TIME = 16  # whose order is computed at once: a small batch's own costs as much
BLOCK_CACHE_BYTES = 2**30  # of shards behind URLs: as many shards of 128 MiB


class _Opener:
    """Opens a source's images, and keeps small ones decoded for the next epoch while they fit into `CACHE_BYTES`.

    An image that may be shrunk in decoding is never kept: whether a crop comes from the full or from the shrunk
    image must depend on the crop alone.
    """

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        self._source = source
        self._size = size
        self._kept: dict[int, Picture] = {}
        self._room = CACHE_BYTES

    def picture(self, index: int) -> Picture:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._source.read(index)
        picture = open_picture(sample.data, sample.name)
        if picture.largest_shrink(self._size) > 1 or picture.height * picture.width * 3 > self._room:
            return picture
        kept = as_picture(picture.pixels()) if picture.shrinkable else picture  # what cannot be shrunk is decoded
        # Two threads may overdraw the room by an image each, which is harmless; a lock here would not be.
        self._room -= kept.height * kept.width * 3
        self._kept[index] = kept
        return kept


def training_batches(
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    steps: int,
    workers: int | None = None,
    rank: int = 0,
    ranks: int = 1,
    bad_images: Bad = "refuse",
    order: Order = "global",
    pin_memory: bool = False,
) -> Generator[Batch]:
    """The batches of steps first_step .. steps - 1: epoch after epoch, each in an order of its own.

    A batch is a function of (source, preprocessing, augmentation, batch_size, seed, step) alone, whatever the
    number of workers and wherever the stream is entered; a batch may span two epochs. Several ranks share it out:
    rank r gets the rows r * B / ranks to (r + 1) * B / ranks. Closing the iterator stops its threads.

    Args:
        source: the training images.
        preprocessing: the model's.
        augmentation: how each image is varied.
        batch_size: images a batch over all ranks, at most `len(source)`, a multiple of `ranks`.
        seed: of the order and of the augmentation.
        first_step: where to start; the number of steps already done.
        steps: where the run ends.
        workers: decoding threads; 0 decodes in the caller's thread, None takes one a processor.
        rank: which share of each batch is wanted, 0 <= rank < ranks.
        ranks: in how many shares a batch is given out.
        bad_images: what happens where an image cannot be read: "refuse" ends the stream, "skip" leaves it out and
            says so in `Batch.skipped`.
        order: "global" shuffles over the whole source; "shards" reads tar shards in a shuffled order, and shuffles
            within a few of them at a time (see `shard_order`).
        pin_memory: whether images are put where a CUDA device can fetch them by itself.

    Raises:
        UserError: at once, where the source has fewer images than a batch; from the iterator, where an image
            cannot be read.
    """
    assert 0 <= rank < ranks
    assert batch_size % ranks == 0
    if len(source) < batch_size:
        raise UserError(
            f"{source.name}: its {len(source):,} images are fewer than a batch of {batch_size:,}; "
            f"set a smaller one with --set batch_size={len(source)}"
        )
    order_of = _order_of(source, order, seed)
    reading = source.with_block_cache(BlockCache(BLOCK_CACHE_BYTES)) if order == "shards" else source
    opener = _Opener(reading, preprocessing.size)
    share = batch_size // ranks
    generators = SampleGenerators(seed)

    def plans() -> Iterator[Plan]:
        for first in range(first_step, steps, STEPS_AT_A_TIME):
            some = range(first, min(first + STEPS_AT_A_TIME, steps))
            positions_SB = np.array(some)[:, None] * batch_size + rank * share + np.arange(share)
            epochs_N, indices_N = order_of(positions_SB.ravel())
            rows = zip(some, indices_N.reshape(positions_SB.shape), epochs_N.reshape(positions_SB.shape), strict=True)
            for step, indices_B, epochs_B in rows:
                yield Plan(step, indices_B, epochs_B, rank * share)

    def make(epoch: int, index: int) -> tuple[RGB, Variation | None]:
        rng = generators.of(epoch, index)
        image_HWC, variation = crop_and_draw(opener.picture(index), augmentation, preprocessing, rng)
        return (image_HWC, variation) if augmentation.where == "device" else (vary(image_HWC, variation), None)

    light = None
    if workers == 0 and augmentation.where == "workers" and is_light(source, preprocessing, augmentation, CACHE_BYTES):
        light = LightImages(source, preprocessing, augmentation, seed).fill
    return assemble(
        plans(), make, source.labels_N, preprocessing.size,
        workers=workers, bad_images=bad_images, pin_memory=pin_memory, make_all=light,
    )  # fmt: skip


def _order_of(source: Source, order: Order, seed: int) -> Callable[[Int64s], tuple[Int64s, Int64s]]:
    """Which (epoch, index) stands at each position of the endless stream of epochs."""
    if order == "global":
        return lambda positions_N: sample_order(positions_N, len(source), seed)
    if source.shards_N is None:
        raise UserError(
            f"{source.name}: data.order=shards needs tar shards; leave it out, or pack the images with `vitlab data pack`"
        )
    sizes_S = np.bincount(source.shards_N)
    by_shard_N = np.argsort(source.shards_N, kind="stable")  # the samples of each shard lie side by side in it

    def visited(positions_N: Int64s) -> tuple[Int64s, Int64s]:
        epochs_N, places_N = shard_order(positions_N, sizes_S[sizes_S > 0].tolist(), seed, SHARDS_AT_A_TIME)
        return epochs_N, by_shard_N[places_N]

    return visited


def evaluation_batches(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int | None = None,
    bad_images: Bad = "refuse",
) -> Generator[Batch]:
    """Every image once, in the source's order, prepared without variation; the last batch may be smaller.

    Args:
        source: the images.
        preprocessing: the model's.
        batch_size: images a batch.
        workers: decoding threads; 0 decodes in the caller's thread, None takes one a processor.
        bad_images: as for training.

    Raises:
        UserError: from the iterator, where an image cannot be read and is to be refused.
    """

    def plans() -> Iterator[Plan]:
        for step, start in enumerate(range(0, len(source), batch_size)):
            indices_B = np.arange(start, min(start + batch_size, len(source)))
            yield Plan(step, indices_B, np.zeros_like(indices_B))

    def make(epoch: int, index: int) -> tuple[RGB, None]:
        sample = source.read(index)
        return prepare(decode(sample.data, sample.name), preprocessing), None

    return assemble(plans(), make, source.labels_N, preprocessing.size, workers=workers, bad_images=bad_images)


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
