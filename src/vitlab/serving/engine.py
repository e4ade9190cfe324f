"""What computes predictions: engines that run the model, and dynamic batching in front of them.

Requests that arrive together are computed in one batch, from one bounded queue in one thread.

Shapes: B images of a batch, H W height and width, C colours, K classes.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vitlab import weights
from vitlab.data import loader
from vitlab.data.images import RGB
from vitlab.errors import UserError
from vitlab.models.build import Model, probabilities
from vitlab.runtime import Runtime
from vitlab.serving.limits import Limits, Refused

Engine = Callable[[RGB], NDArray[np.float32]]  # prepared images_BHWC -> probabilities_BK
EngineName = Literal["pytorch", "onnx"]
Probabilities = NDArray[np.float32]  # (classes,)


def torch_engine(model: Model, runtime: Runtime) -> Engine:
    """The model in PyTorch; it is moved to the device and set to evaluation mode."""
    model.eval().to(runtime.device)

    def run(images_BHWC: RGB) -> NDArray[np.float32]:
        with torch.inference_mode(), runtime.autocast():
            inputs_BCHW = loader.normalise(torch.from_numpy(images_BHWC), model.preprocessing, runtime.device)
            probabilities_BK: NDArray[np.float32] = probabilities(model(inputs_BCHW)).numpy()
        return probabilities_BK

    return run


def onnx_engine(model: Model) -> Engine:
    """The model as an ONNX graph on the CPU.

    Raises:
        UserError: its libraries are not installed, or the model cannot be exported to one file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError('the ONNX engine needs onnxruntime: pip install "vitlab[onnx]"') from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        weights.save_model(model, file, format="onnx")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(images_BHWC: RGB) -> NDArray[np.float32]:
        inputs_BCHW = loader.normalise(torch.from_numpy(images_BHWC), model.preprocessing)
        (logits_BK,) = session.run(["logits"], {"images": inputs_BCHW.numpy()})
        probabilities_BK: NDArray[np.float32] = probabilities(torch.from_numpy(logits_BK)).numpy()
        return probabilities_BK

    return run


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
