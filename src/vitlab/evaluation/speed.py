"""How fast models answer, and how many images fit: a sweep over image and batch sizes (paper: App. D.5, Figure 12)."""

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
    """What was measured of one model at one resolution.

    Attributes:
        model: its name.
        image_size: height and width in pixels.
        images_per_second: by batch size, of those that fitted; the median of the repetitions.
        largest_batch: the largest one that fitted.
        smallest_refused: the smallest one that did not fit; none where all did.
        predicted_largest: what the arithmetic says of this device's memory; none where its size is not known.
    """

    model: str
    image_size: int
    images_per_second: dict[int, float]
    largest_batch: int
    smallest_refused: int | None
    predicted_largest: int | None

    @property
    def peak(self) -> float:
        """Images a second at the best batch size; 0 where none fitted."""
        return max(self.images_per_second.values(), default=0.0)

    @property
    def best_batch(self) -> int:
        """The batch size of the peak; 0 where none fitted."""
        return max(self.images_per_second, key=lambda batch: self.images_per_second[batch], default=0)


def sweep(
    name: str,
    image_size: int,
    batches: Sequence[int],
    runtime: Runtime,
    *,
    device_bytes: int | None = None,
    repetitions: int = REPETITIONS,
    say: Callable[[str], None] = lambda line: None,
) -> Speed:
    """Time a model's forward pass on random images, smaller batches first, until memory is not enough.

    Args:
        name: of the zoo.
        image_size: height and width in pixels.
        batches: how many images at a time.
        runtime: device and precision.
        device_bytes: the device's memory. Where the arithmetic says that a batch needs more, it is not tried: on the
            CPU it would be the machine that runs out.
        repetitions: of every measurement.
        say: is told of each.

    Raises:
        UserError: an unknown model, or one that cannot have this image size.
    """
    config = zoo.configure(name, {"image_size": image_size})
    precision: memory.Precision = "bfloat16" if runtime.compute == torch.bfloat16 else "float32"
    predicted = (
        None if device_bytes is None else memory.largest_inference_batch(config, device_bytes, precision=precision)
    )
    model = _built(config, runtime)
    speeds: dict[int, float] = {}
    refused = None
    for batch in sorted(set(batches)):
        if predicted is not None and batch > predicted:
            refused = batch
            break
        try:
            speeds[batch] = batch / _seconds(model, image_size, batch, runtime, repetitions)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            refused = batch
            break
        say(f"{name} at {image_size} px, batch {batch}: {speeds[batch]:,.1f} images/s")
    _let_go(runtime)
    return Speed(name, image_size, speeds, max(speeds, default=0), refused, predicted)


def check_sizes(names: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int]]:
    """Every model with every image size that its patches divide, refused at once where a name is unknown.

    Raises:
        UserError: an unknown model, or nothing left.
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
        raise UserError(f"none of the models can have one of the image sizes {', '.join(map(str, sizes))}")
    return fitting


def device_memory(runtime: Runtime) -> int | None:
    """Bytes of memory that the runtime's device has: a GPU's own, the free part of the machine's, or unknown."""
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
    """The median time of a batch; images are on the device already."""
    images_BCHW = _random_images(image_size, batch, runtime)
    times = []
    with torch.inference_mode(), runtime.autocast():
        for number in range(WARM_UPS + repetitions):
            _wait(runtime)
            begun = time.perf_counter()
            model(images_BCHW)
            _wait(runtime)
            if number >= WARM_UPS:
                times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _random_images(image_size: int, batch: int, runtime: Runtime) -> Tensor:
    """The same ones every time, between -1 and 1 as the models take them."""
    chance = torch.Generator(device=runtime.device).manual_seed(0)
    images_BCHW = torch.empty(batch, 3, image_size, image_size, device=runtime.device)
    return images_BCHW.uniform_(-1, 1, generator=chance)


def _wait(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    elif runtime.device.type == "mps":
        torch.mps.synchronize()


def _let_go(runtime: Runtime) -> None:
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()
