"""Where a run happens: device, precision, ranks, seeds, and a description of the machine."""

import hashlib
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vitlab.errors import RankLost, UserError

REPORTED_PACKAGES = ("vitlab", "torch", "numpy", "pillow", "safetensors")
JOINING = timedelta(minutes=5)
# A killed process is noticed at once, by its closed connection; only a machine that stops answering takes this long.
# It must be longer than the longest evaluation, during which the other processes wait.
SILENCE = timedelta(hours=2)
TEXT_BYTES = 2048


@dataclass(frozen=True)
class Runtime:
    """A device and the precision of the arithmetic on it.

    Attributes:
        device: where the model lives.
        compute: dtype of the matrix products; weights and optimizer stay float32.
        rank, ranks: this process's number, and how many processes the run has.
        host_group: the group that exchanges numbers between hosts; None in a run of one process.
    """

    device: torch.device
    compute: torch.dtype
    rank: int = 0
    ranks: int = 1
    host_group: dist.ProcessGroup | None = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints for all."""
        return self.rank == 0

    def compute_of(self, precision: str) -> torch.dtype:
        """The dtype of matrix products for a recipe's `scale.precision`."""
        named = {"auto": self.compute, "float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.bfloat16}
        return named[precision]

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs at the `compute` precision."""
        if self.compute == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)


def choose(device: str = "auto") -> Runtime:
    """The runtime of `device`: "auto" takes CUDA, then Apple's GPU, then the CPU. GPUs compute in bfloat16."""
    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"unknown device '{device}': use auto, cuda, mps or cpu") from None
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device '{device}': use auto, cuda, mps or cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{device}' is not available: {torch.cuda.device_count()} CUDA devices found; try --device cpu"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available; try --device cpu")
    return Runtime(chosen, torch.bfloat16 if chosen.type == "cuda" else torch.float32)


@contextmanager
def process_group(runtime: Runtime) -> Iterator[Runtime]:
    """Inside, the processes that torchrun started are one run; any other process is a run of its own.

    Numbers on the host are exchanged over gloo, on every kind of machine, and so never wait for a device.

    Raises:
        RankLost: from what is done inside, when another process ended.
    """
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield runtime
        return
    device = runtime.device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=JOINING)
        host_group = dist.new_group(backend="gloo", timeout=SILENCE)
        yield replace(runtime, device=device, rank=dist.get_rank(), ranks=ranks, host_group=host_group)
        # Not after an error: disconnecting from a process that is gone can wait for ever, and this one ends anyway.
        dist.destroy_process_group()
    except (RuntimeError, dist.DistError) as error:
        if not _is_lost_peer(error):
            raise
        raise RankLost("another process of this run ended; --resume continues from the newest checkpoint") from error


def _is_lost_peer(error: Exception) -> bool:
    signs = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "recvValue failed", "sendBytes")
    return not isinstance(error, torch.OutOfMemoryError) and any(sign in str(error) for sign in signs)


def all_reduce_sum(runtime: Runtime, values: Sequence[float]) -> list[float]:
    """Each value summed over the ranks, in float64, the same on all."""
    if runtime.ranks == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(summed, group=runtime.host_group)
    return list(summed.tolist())


def all_reduce_max(runtime: Runtime, value: float) -> float:
    """The largest of the ranks' values, the same on all."""
    if runtime.ranks == 1:
        return value
    most = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(most, dist.ReduceOp.MAX, group=runtime.host_group)
    return float(most)


def all_gather_text(runtime: Runtime, text: str) -> list[str]:
    """Every rank's text, by rank; long ones are truncated."""
    if runtime.ranks == 1:
        return [text]
    own = torch.zeros(TEXT_BYTES, dtype=torch.uint8)
    data = text.encode()[:TEXT_BYTES]
    own[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)
    all_of_them = [torch.empty_like(own) for _ in range(runtime.ranks)]
    dist.all_gather(all_of_them, own, group=runtime.host_group)
    return [bytes(one.tolist()).rstrip(b"\0").decode(errors="replace") for one in all_of_them]


def all_reduce_on_device(runtime: Runtime, value: Tensor) -> Tensor:
    """A tensor summed over the ranks in place, without waiting for the device."""
    if runtime.ranks > 1:
        dist.all_reduce(value)
    return value


@contextmanager
def raise_on_all(runtime: Runtime) -> Iterator[None]:
    """A user's mistake that one process finds inside is raised in all of them, with the same message."""
    mistake = ""
    try:
        yield
    except UserError as error:
        if runtime.ranks == 1:
            raise
        mistake = str(error) or "unknown mistake"
    if runtime.ranks > 1:
        first = next((text for text in all_gather_text(runtime, mistake) if text), "")
        if first:
            raise UserError(first)


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose of a run, such as ("dropout", step): a pure function of its arguments."""
    text = ":".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Inside, torch's random numbers are a function of the arguments alone; outside they continue as before."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        number = derived_seed(seed, *purpose)
        if devices or torch.backends.mps.is_available():
            torch.manual_seed(number)
        else:
            # torch.manual_seed would also note a stack trace for every kind of device that is missing: 0.25 ms.
            torch.default_generator.manual_seed(number)
        yield


def environment(runtime: Runtime) -> dict[str, str | int]:
    """What a result depends on besides its recipe: versions, device, cores."""
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
