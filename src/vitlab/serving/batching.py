"""Requests that arrive together are computed together: one bounded queue, one thread that works."""

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
class _Waiting:
    """An image, and where its answer goes."""

    image_HWC: RGB
    answer: asyncio.Future[Probabilities]


class Batcher:
    """Gathers images into batches for an engine, in order of arrival.

    A batch is closed when it is full, or when its first image has waited `limits.gather_seconds`. While a batch is
    computed the next one gathers, so that under load batches are full and nothing waits for the clock.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self._limits = limits
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(limits.waiting)

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
            self._queue.put_nowait(_Waiting(image_HWC, answer))
        except asyncio.QueueFull:
            raise Refused(429, "too many images are waiting; try again in a while") from None
        return await answer

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Answers are given inside."""
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
            # A client that has gone away is not computed for.
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            if batch:
                await self._answer(batch, thread)

    async def _gather(self) -> list[_Waiting]:
        batch = [await self._queue.get()]
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.gather_seconds):
                while len(batch) < self._limits.batch:
                    batch.append(await self._queue.get())
        return batch

    async def _answer(self, batch: list[_Waiting], thread: ThreadPoolExecutor) -> None:
        images_BHWC = np.stack([waiting.image_HWC for waiting in batch])
        try:
            found_BK = await asyncio.get_running_loop().run_in_executor(thread, self._engine, images_BHWC)
        except Exception as error:  # whatever it was, this batch fails with it, and the next one is tried
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, found_K in zip(batch, found_BK, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(found_K)
