"""Batches: decoded and varied by threads, in an order that a step number alone determines."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.augment import augment
from vitlab.data.images import RGB, decode, prepare
from vitlab.data.order import sample_generator, sample_order
from vitlab.data.sources import Source
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

BATCHES_AHEAD = 2
CACHE_BYTES = 256 * 2**20
SMALLEST_CHUNK = 16  # fewer images than this are not worth handing to another thread


@dataclass(frozen=True, eq=False)
class Batch:
    """Images on the host, before normalisation.

    Attributes:
        step: the batch's number; training batch s holds positions s * B .. (s + 1) * B - 1 of the endless
            stream.
        images_BHWC: uint8 RGB of the model's input size.
        labels_B: int64 classes.
        indices_B: int64 indices into the source.
        epochs_B: int64 epoch of each sample; 0 in evaluation.
    """

    step: int
    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    epochs_B: Tensor


@dataclass(frozen=True)
class _Plan:
    """What a batch is to hold, known before any image is read."""

    step: int
    indices_B: NDArray[np.int64]
    epochs_B: NDArray[np.int64]


Make = Callable[[int, int], RGB]  # (epoch, index) -> the finished image


class _Decoder:
    """Decodes a source's images, and keeps them for the next epoch while they fit into `CACHE_BYTES`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kept: dict[int, RGB] = {}
        self._room = CACHE_BYTES

    def image(self, index: int) -> RGB:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._source.read(index)
        image_HWC = decode(sample.data, sample.name)
        # Two threads may overdraw the room by an image each, which is harmless; a lock here would not be.
        if image_HWC.nbytes <= self._room:
            self._room -= image_HWC.nbytes
            self._kept[index] = image_HWC
        return image_HWC


def default_workers() -> int:
    """One thread for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


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
) -> Iterator[Batch]:
    """The batches of steps first_step .. steps - 1: epoch after epoch, each in an order of its own.

    A batch is a function of (source, preprocessing, augmentation, batch_size, seed, step) alone, whatever the
    number of workers and wherever the stream is entered; a batch may span two epochs. Closing the iterator
    stops its threads.

    Args:
        source: the training images.
        preprocessing: the model's.
        augmentation: how each image is varied.
        batch_size: images a batch, at most `len(source)`.
        seed: of the order and of the augmentation.
        first_step: where to start; the number of steps already done.
        steps: where the run ends.
        workers: decoding threads; 0 decodes in the caller's thread, None takes one a processor.

    Raises:
        UserError: at once, where the source has fewer images than a batch; from the iterator, where an image
            cannot be read.
    """
    if len(source) < batch_size:
        raise UserError(
            f"{source.name}: its {len(source):,} images are fewer than a batch of {batch_size:,}; "
            f"set a smaller one with --set batch_size={len(source)}"
        )
    decoder = _Decoder(source)

    def plans() -> Iterator[_Plan]:
        for step in range(first_step, steps):
            positions = np.arange(step * batch_size, (step + 1) * batch_size)
            epochs_B, indices_B = sample_order(positions, len(source), seed)
            yield _Plan(step, indices_B, epochs_B)

    def make(epoch: int, index: int) -> RGB:
        return augment(decoder.image(index), augmentation, preprocessing, sample_generator(seed, epoch, index))

    return _batches(plans(), make, source, preprocessing, workers)


def evaluation_batches(
    source: Source, preprocessing: Preprocessing, *, batch_size: int, workers: int | None = None
) -> Iterator[Batch]:
    """Every image once, in the source's order, prepared without variation; the last batch may be smaller.

    Args:
        source: the images.
        preprocessing: the model's.
        batch_size: images a batch.
        workers: decoding threads; 0 decodes in the caller's thread, None takes one a processor.

    Raises:
        UserError: from the iterator, where an image cannot be read.
    """

    def plans() -> Iterator[_Plan]:
        for step, start in enumerate(range(0, len(source), batch_size)):
            indices_B = np.arange(start, min(start + batch_size, len(source)))
            yield _Plan(step, indices_B, np.zeros_like(indices_B))

    def make(epoch: int, index: int) -> RGB:
        sample = source.read(index)
        return prepare(decode(sample.data, sample.name), preprocessing)

    return _batches(plans(), make, source, preprocessing, workers)


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


@dataclass(frozen=True, eq=False)
class _Filling:
    """A batch whose rows threads are at work on."""

    plan: _Plan
    images_BHWC: NDArray[np.uint8]
    parts: list[Future[None]]


def _batches(
    plans: Iterator[_Plan], make: Make, source: Source, preprocessing: Preprocessing, workers: int | None
) -> Iterator[Batch]:
    if workers == 0:
        for plan in plans:
            images_BHWC = _room(plan, preprocessing)
            _fill(make, plan, images_BHWC, range(len(images_BHWC)))
            yield _finished(plan, images_BHWC, source)
        return
    threads = default_workers() if workers is None else workers
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vitlab-data")
    waiting: deque[_Filling] = deque()
    try:
        for plan in plans:
            images_BHWC = _room(plan, preprocessing)
            chunks = _chunks(len(images_BHWC), threads)
            waiting.append(
                _Filling(plan, images_BHWC, [pool.submit(_fill, make, plan, images_BHWC, rows) for rows in chunks])
            )
            if len(waiting) > BATCHES_AHEAD:
                yield _awaited(waiting.popleft(), source)
        while waiting:
            yield _awaited(waiting.popleft(), source)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _room(plan: _Plan, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    return np.empty((len(plan.indices_B), *preprocessing.size, 3), np.uint8)


def _fill(make: Make, plan: _Plan, images_BHWC: NDArray[np.uint8], rows: range) -> None:
    for row in rows:
        images_BHWC[row] = make(int(plan.epochs_B[row]), int(plan.indices_B[row]))


def _awaited(filling: _Filling, source: Source) -> Batch:
    for part in filling.parts:
        part.result()
    return _finished(filling.plan, filling.images_BHWC, source)


def _finished(plan: _Plan, images_BHWC: NDArray[np.uint8], source: Source) -> Batch:
    return Batch(
        step=plan.step,
        images_BHWC=torch.from_numpy(images_BHWC),
        labels_B=torch.from_numpy(source.labels_N[plan.indices_B]),
        indices_B=torch.from_numpy(plan.indices_B),
        epochs_B=torch.from_numpy(plan.epochs_B),
    )


def _chunks(count: int, workers: int) -> list[range]:
    """The rows of a batch in about `workers` equal parts."""
    size = max(SMALLEST_CHUNK, -(-count // workers))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
