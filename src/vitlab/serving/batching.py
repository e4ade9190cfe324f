"""Dynamic batching: requests that arrive together are computed in one batch, from one bounded queue in one thread."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitlab.data.images import RGB
from vitlab.serving.engine import Engine
from vitlab.serving.limits import Limits, Refused

Probabilities = NDArray[np.float32]  # (classes,)


@dataclass(frozen=True, eq=False)
class _QueuedImage:
    """An image in the queue, and the future that its requester awaits."""

    image_HWC: RGB
    answer: asyncio.Future[Probabilities]


class Batcher:
    """Collects images into batches for an engine, in order of arrival.

    A batch is closed when it is full, or when its first image has waited `limits.gather_seconds`. While one batch is
    computed the next one is collected, so that under load batches are full and no image waits for the timeout.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._queue: asyncio.Queue[_QueuedImage] = asyncio.Queue(limits.waiting)

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        return self._queue.qsize()

    async def predict(self, image_HWC: RGB) -> Probabilities:
        """The probabilities of a prepared image, (classes,).

        Raises:
            Refused: 429, the queue is full.
        """
        answer: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(_QueuedImage(image_HWC, answer))
        except asyncio.QueueFull:
            raise Refused(429, "too many images are waiting; try again later") from None
        return await answer

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Requests are answered while this context is open."""
        with ThreadPoolExecutor(1, "predict") as thread:
            task = asyncio.create_task(self._work(thread))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _work(self, thread: ThreadPoolExecutor) -> None:
        while True:
            batch = await self._gather()
            # Nothing is computed for a client that has disconnected.
            batch = [queued for queued in batch if not queued.answer.done()]
            if batch:
                await self._answer(batch, thread)

    async def _gather(self) -> list[_QueuedImage]:
        batch = [await self._queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.gather_seconds):
                while len(batch) < self._limits.batch:
                    batch.append(await self._queue.get())
        return batch

    async def _answer(self, batch: list[_QueuedImage], thread: ThreadPoolExecutor) -> None:
        images_BHWC = np.stack([queued.image_HWC for queued in batch])
        try:
            probabilities_BK = await asyncio.get_running_loop().run_in_executor(thread, self._engine, images_BHWC)
        except Exception as error:  # this batch fails with it, whatever it is, and the next one is tried
            for queued in batch:
                if not queued.answer.done():
                    queued.answer.set_exception(error)
            return
        for queued, probabilities_K in zip(batch, probabilities_BK, strict=True):
            if not queued.answer.done():
                queued.answer.set_result(probabilities_K)
