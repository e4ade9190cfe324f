"""WHERE a run happens: device, precision, seeds, and what the machine is."""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from vitlab.errors import UserError

REPORTED_PACKAGES = ("vitlab", "torch", "numpy", "pillow", "safetensors")


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of the arithmetic on it.

    Attributes:
        device: where the model lives.
        compute: dtype of the matrix products; weights and optimizer stay float32.
    """

    device: torch.device
    compute: torch.dtype

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs at the `compute` precision."""
        if self.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)


def choose(device: str = "auto") -> Runtime:
    """The runtime of `device`: "auto" takes CUDA, then Apple's GPU, then the CPU. GPUs compute in bfloat16."""
    name = _best_device() if device == "auto" else device
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{device}': use auto, cuda, mps or cpu") from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device '{device}': use auto, cuda, mps or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{device}' is not here: {torch.cuda.device_count()} CUDA devices found; try --device cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not here; try --device cpu")
    return Runtime(chosen, torch.bfloat16 if chosen.type == "cuda" else torch.float32)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose of a run, such as ("dropout", step): a pure function of its arguments."""
    text = ":".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Torch's random numbers inside are a function of the arguments alone; outside they go on as before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derived_seed(seed, *purpose))
        yield


def environment(runtime: Runtime) -> dict[str, str | int]:
    """What a result depends on beside its recipe: versions, device, cores."""
    name = torch.cuda.get_device_name(runtime.device) if runtime.device.type == "cuda" else _processor()
    return {
        "device": str(runtime.device),
        "device_name": name,
        "compute": str(runtime.compute).removeprefix("torch."),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in REPORTED_PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
