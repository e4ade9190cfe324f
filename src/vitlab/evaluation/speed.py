"""Inference throughput and largest batch size of models, by image and batch size (paper: App. D.5, Figure 12)."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vitlab.errors import UserError
from vitlab.models.build import Model, build
from vitlab.recipes import memory, zoo
from vitlab.recipes.configs import ModelConfig
from vitlab.runtime import Runtime, seeded
from vitlab.training.memory import is_shortage

REPETITIONS = 5
WARM_UPS = 2


@dataclass(frozen=True)
class Speed:
    """The measured throughput of one model at one image size.

    Attributes:
        model: its name.
        image_size: height and width in pixels.
        images_per_second: by batch size, of those that fitted into memory; the median of the repetitions.
        largest_batch: the largest batch size that fitted.
        smallest_refused: the smallest batch size that did not fit; None if all did.
        predicted_largest: the largest batch size predicted for this device's memory; None if that is unknown.
    """

    model: str
    image_size: int
    images_per_second: dict[int, float]
    largest_batch: int
    smallest_refused: int | None
    predicted_largest: int | None

    @property
    def peak(self) -> float:
        """Images per second at the best batch size; 0 if none fitted."""
        return max(self.images_per_second.values(), default=0.0)

    @property
    def best_batch(self) -> int:
        """The batch size with the highest throughput; 0 if none fitted."""
        return max(self.images_per_second, key=lambda batch: self.images_per_second[batch], default=0)


def sweep(
    name: str,
    image_size: int,
    batches: Sequence[int],
    runtime: Runtime,
    *,
    device_bytes: int | None = None,
    repetitions: int = REPETITIONS,
    log: Callable[[str], None] = lambda line: None,
) -> Speed:
    """Time a model's forward pass on random images with growing batch sizes, until memory runs out.

    Args:
        name: of a model of the zoo.
        image_size: height and width in pixels.
        batches: batch sizes.
        runtime: device and precision.
        device_bytes: the device's memory; a batch predicted to exceed it is not tried, as the machine would hang.
        repetitions: of every measurement.
        log: called with a line of text after every measurement.

    Raises:
        UserError: an unknown model, or one that does not support this image size.
    """
    config = zoo.configure(name, {"image_size": image_size})
    predicted = _predicted_largest(config, runtime, device_bytes)
    model = _built(config, runtime)
    speeds: dict[int, float] = {}
    refused = None
    for batch in sorted(set(batches)):
        too_large = predicted is not None and batch > predicted
        seconds = None if too_large else _seconds_or_none(model, image_size, batch, runtime, repetitions)
        if seconds is None:
            refused = batch
            break
        speeds[batch] = batch / seconds
        log(f"{name} at {image_size} px, batch {batch}: {speeds[batch]:,.1f} images/s")
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
    return Speed(name, image_size, speeds, max(speeds, default=0), refused, predicted)


def _predicted_largest(config: ModelConfig, runtime: Runtime, device_bytes: int | None) -> int | None:
    if device_bytes is None:
        return None
    precision: memory.Precision = "bfloat16" if runtime.compute == torch.bfloat16 else "float32"
    return memory.largest_inference_batch(config, device_bytes, precision=precision)


def _seconds_or_none(model: Model, image_size: int, batch: int, runtime: Runtime, repetitions: int) -> float | None:
    """The median time of a batch; None if memory runs out."""
    try:
        return _seconds(model, image_size, batch, runtime, repetitions)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        return None


def check_sizes(names: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Every pair of a model and an image size that it supports; an unknown name is refused before anything runs.

    Raises:
        UserError: an unknown model, or no such pair.
    """
    fitting = []
    for name in names:
        zoo.get(name)
        for size in sizes:
            try:
                zoo.configure(name, {"image_size": size})
            except UserError:
                continue
            fitting.append((name, size))
    if not fitting:
        raise UserError(f"no model supports any of the image sizes {', '.join(map(str, sizes))}; choose other sizes")
    return fitting


def device_memory(runtime: Runtime) -> int | None:
    """Memory of the runtime's device in bytes: a GPU's total, or what is available on the machine; None if unknown."""
    if runtime.device.type == "cuda":
        return torch.cuda.get_device_properties(runtime.device).total_memory
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def _built(config: ModelConfig, runtime: Runtime) -> Model:
    with seeded(0, "speed"):
        return build(config).eval().to(runtime.device)


def _seconds(model: Model, image_size: int, batch: int, runtime: Runtime, repetitions: int) -> float:
    """The median time of a batch; the images are already on the device."""
    images_BCHW = _random_images(image_size, batch, runtime)
    times = []
    with torch.inference_mode(), runtime.autocast():
        for number in range(WARM_UPS + repetitions):
            _wait(runtime)
            start = time.perf_counter()
            model(images_BCHW)
            _wait(runtime)
            if number >= WARM_UPS:
                times.append(time.perf_counter() - start)
    return statistics.median(times)


def _random_images(image_size: int, batch: int, runtime: Runtime) -> Tensor:
    """Between -1 and 1, as the models expect them; the same ones on every call."""
    generator = torch.Generator(device=runtime.device).manual_seed(0)
    images_BCHW = torch.empty(batch, 3, image_size, image_size, device=runtime.device)
    return images_BCHW.uniform_(-1, 1, generator=generator)


def _wait(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    elif runtime.device.type == "mps":
        torch.mps.synchronize()
