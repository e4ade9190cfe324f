"""Fills batches with images by threads, and moves them to the device while it works on the previous one.

What a batch holds is fixed before; which thread makes a row has no effect.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.augmentation.augment import Variation
from vitlab.data.images import RGB
from vitlab.data.sources import Bad
from vitlab.errors import UserError

BATCHES_AHEAD = 2
SMALLEST_CHUNK = 16  # fewer images than this are not worth giving to another thread


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
        positions_B: int64 position of each row in the global batch, which several ranks may share.
        variations: the augmentation still to be applied to each image on the device (see `device_augment.vary_batch`);
            empty, unless augmentation is left to the device.
        skipped: what was wrong with each image that was left out; the batch is smaller by as many, and nothing
            takes their place.
        waited: seconds for which the caller waited until the batch was complete.
    """

    step: int
    images_BHWC: Tensor
    labels_B: Tensor
    indices_B: Tensor
    epochs_B: Tensor
    positions_B: Tensor
    variations: tuple[Variation, ...] = ()
    skipped: tuple[str, ...] = ()
    waited: float = 0.0


@dataclass(frozen=True)
class BatchIndices:
    """The indices of a batch's images, known before any of them is read.

    Attributes:
        step: the batch's number.
        indices_B, epochs_B: of each image.
        first_position: position of the first row in the global batch.
    """

    step: int
    indices_B: NDArray[np.int64]
    epochs_B: NDArray[np.int64]
    first_position: int = 0


# (epoch, index) -> the image, and what is left to be done to it on the device
Make = Callable[[int, int], tuple[RGB, Variation | None]]
# (epochs, indices, where to) -> whether all images could be made at once
MakeAll = Callable[[NDArray[np.int64], NDArray[np.int64], RGB], bool]


def default_workers() -> int:
    """One thread for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def assemble(
    wanted: Iterator[BatchIndices], make: Make, labels_N: NDArray[np.int64], size: tuple[int, int], *,
    workers: int | None = None, bad_images: Bad = "refuse", pin_memory: bool = False, make_all: MakeAll | None = None,
) -> Generator[Batch]:  # fmt: skip
    """One batch for each that is wanted, in order; up to two more are being made meanwhile.

    Args:
        wanted: which images.
        make: (epoch, index) -> uint8 RGB of `size` and its variation, if that is left to the device; called from
            several threads at once.
        labels_N: label by index.
        size: (height, width) of every image.
        workers: threads; 0 makes the images in the caller's thread, None means one per processor.
        bad_images: "refuse" lets a UserError of `make` through, "skip" leaves the image out.
        pin_memory: whether images are put where a CUDA device can fetch them by itself.
        make_all: makes all images of a batch at once, where that is possible; where it returns False, `make` makes
            them. Only without threads.
    """

    def begun(batch: BatchIndices) -> _Filling:
        images_BHWC = torch.empty((len(batch.indices_B), *size, 3), dtype=torch.uint8, pin_memory=pin_memory)
        return _Filling(batch, images_BHWC, make, bad_images)

    threads = default_workers() if workers is None else workers
    if threads:
        yield from _by_threads(map(begun, wanted), labels_N, threads)
    else:
        for batch in wanted:
            yield begun(batch).finished(labels_N, make_all)


def _by_threads(fillings: Iterator["_Filling"], labels_N: NDArray[np.int64], threads: int) -> Generator[Batch]:
    waiting: deque[_Filling] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vitlab-data")
    try:
        for filling in fillings:
            filling.hand_to(pool, threads)
            waiting.append(filling)
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft().finished(labels_N)
        while waiting:
            yield waiting.popleft().finished(labels_N)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Filling:
    """A batch whose rows are being made."""

    def __init__(self, wanted: BatchIndices, images_BHWC: Tensor, make: Make, bad_images: Bad) -> None:
        self._wanted = wanted
        self._images_BHWC = images_BHWC
        self._make = make
        self._skips = bad_images == "skip"
        self._variations: dict[int, Variation] = {}  # by row; each row is written by one thread
        self._chunks: list[Future[dict[int, str]]] | None = None

    def hand_to(self, pool: ThreadPoolExecutor, threads: int) -> None:
        """Lets threads make the rows, each about as many."""
        rows = len(self._images_BHWC)
        size = max(SMALLEST_CHUNK, -(-rows // threads))
        chunks = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
        self._chunks = [pool.submit(self._fill, chunk) for chunk in chunks]

    def finished(self, labels_N: NDArray[np.int64], make_all: MakeAll | None = None) -> Batch:
        """The batch, once all of its rows are made; without the rows of bad images."""
        start = perf_counter()
        wanted = self._wanted
        if make_all is not None and make_all(wanted.epochs_B, wanted.indices_B, self._images_BHWC.numpy()):
            bad: dict[int, str] = {}
        elif self._chunks is None:
            bad = self._fill(range(len(self._images_BHWC)))
        else:
            bad = {row: reason for chunk in self._chunks for row, reason in chunk.result().items()}
        batch = Batch(
            step=wanted.step, images_BHWC=self._images_BHWC, labels_B=torch.from_numpy(labels_N[wanted.indices_B]),
            indices_B=torch.from_numpy(wanted.indices_B), epochs_B=torch.from_numpy(wanted.epochs_B),
            positions_B=wanted.first_position + torch.arange(len(wanted.indices_B)),
            variations=tuple(self._variations[row] for row in sorted(self._variations)), waited=perf_counter() - start,
        )  # fmt: skip
        return _without(batch, bad) if bad else batch

    def _fill(self, rows: range) -> dict[int, str]:
        """Makes some rows; returns the reason for each that could not be made."""
        images_BHWC = self._images_BHWC.numpy()
        bad: dict[int, str] = {}
        for row in rows:
            try:
                image_HWC, variation = self._make(int(self._wanted.epochs_B[row]), int(self._wanted.indices_B[row]))
                images_BHWC[row] = image_HWC
                if variation is not None:
                    self._variations[row] = variation
            except UserError as error:
                if not self._skips:
                    raise
                bad[row] = str(error)
        return bad


def _without(batch: Batch, bad: dict[int, str]) -> Batch:
    kept_B = torch.tensor([row not in bad for row in range(len(batch.labels_B))])
    return replace(
        batch, images_BHWC=batch.images_BHWC[kept_B], labels_B=batch.labels_B[kept_B],
        indices_B=batch.indices_B[kept_B], epochs_B=batch.epochs_B[kept_B], positions_B=batch.positions_B[kept_B],
        skipped=tuple(bad[row] for row in sorted(bad)),
    )  # fmt: skip


def prefetched(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    """The same batches with images and labels on `device`, on a CUDA device one batch ahead.

    The bytes travel on a stream of their own, so that neither host nor device waits for them; that needs batches in
    pinned memory (`pin_memory` of `loader.training_batches`). Indices and epochs stay on the host.

    Args:
        batches: on the host; closed with this generator.
        device: where the model is.
    """
    with closing(batches):
        if device.type == "cuda":
            yield from _one_ahead(batches, device)
        else:
            for batch in batches:
                yield _moved(batch, device)


def _one_ahead(batches: Generator[Batch], device: torch.device) -> Generator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead: Batch | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            moved = _moved(batch, device)
        if ahead is not None:
            yield ahead
        # The copy was started one step ago; from here on the device's own stream may use it.
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        for tensor in (moved.images_BHWC, moved.labels_B):
            tensor.record_stream(current)
        ahead = moved
    if ahead is not None:
        yield ahead


def _moved(batch: Batch, device: torch.device) -> Batch:
    images_BHWC, labels_B = (part.to(device, non_blocking=True) for part in (batch.images_BHWC, batch.labels_B))
    return replace(batch, images_BHWC=images_BHWC, labels_B=labels_B)
