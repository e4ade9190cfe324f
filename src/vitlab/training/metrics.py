"""The metrics of a run: means over the steps since the last ones, throughput, waiting, memory and energy."""

import importlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from vitlab.models.build import Model
from vitlab.recipes import cost, hardware
from vitlab.runtime import Runtime, all_reduce_sum
from vitlab.training.step import StepResult

MUCH_WAITING = 0.05


@dataclass(frozen=True)
class StepMetrics:
    """The metrics shown and logged at a step: means over the steps since the last ones.

    Attributes:
        step: updates done.
        loss, accuracy: of the training images, each as classified before its update.
        images_per_second: of all processes.
        learning_rate: of the step.
        data_wait: share of the time that training waited for images.
        memory_bytes: peak memory of tensors on a GPU; memory of the process elsewhere.
        seconds_left: at this speed.
        mfu: model FLOPs utilisation, a share of the devices' bfloat16 peak; None if no peak is known.
        energy_joules: energy of the run's GPUs since the last such number, without evaluations; None if unknown.
    """

    step: int
    loss: float
    accuracy: float
    images_per_second: float
    learning_rate: float
    data_wait: float = 0.0
    memory_bytes: int = 0
    seconds_left: float = 0.0
    mfu: float | None = None
    energy_joules: float | None = None

    def numbers(self) -> dict[str, float]:
        """As they are logged, without what is unknown."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def text(self) -> str:
        """As they are shown."""
        mfu = "" if self.mfu is None else f"  mfu {self.mfu:.0%}"
        return (
            f"loss {self.loss:.3f}  acc {self.accuracy:.1%}  lr {self.learning_rate:.2g}  "
            f"{self.images_per_second:,.0f} img/s{mfu}  wait {self.data_wait:.0%}  {self.memory_bytes / 1e9:.1f} GB"
        )


class MetricsTracker:
    """Adds up steps. Reading waits for the device, so it is not done every step.

    Args:
        model: gives the FLOPs of an image.
        runtime: the processes.
        total: steps of the complete run.
    """

    def __init__(self, model: Model, runtime: Runtime, total: int) -> None:
        self._runtime, self._total = runtime, total
        self._flops = cost.FORWARD_AND_BACKWARD * cost.executed_flops(model.config)
        self._peak = _peak(runtime)
        self._joules = gpu_energy(runtime.device)
        self._joules_before = self._joules()
        self._results: list[StepResult] = []
        self._waited = self._waited_in_all = self._timed_in_all = 0.0
        self._since = time.perf_counter()

    def add(self, result: StepResult, waited: float) -> None:
        """Add a step, and the seconds spent waiting for its images."""
        self._results.append(result)
        self._waited += waited

    def restart_clock(self) -> None:
        """Forget the time and energy since the last metrics: they were not spent on training."""
        self._joules_before = self._joules()
        self._since, self._waited = time.perf_counter(), 0.0

    def read(self, step: int, rate: float) -> StepMetrics:
        """The metrics since the last ones; all processes must read at the same steps."""
        loss, correct, rows = _totals(self._results)
        seconds = max(1e-9, time.perf_counter() - self._since)
        steps = max(1, len(self._results))
        own = (loss, correct, rows, self._waited / self._runtime.ranks, self._joules() - self._joules_before)
        loss, correct, rows, waited, joules = all_reduce_sum(self._runtime, own)
        self._waited_in_all += waited
        self._timed_in_all += seconds
        speed = rows / seconds
        now = StepMetrics(
            step=step, loss=loss / max(1, rows), accuracy=correct / max(1, rows), images_per_second=speed,
            learning_rate=rate, data_wait=min(1.0, waited / seconds), memory_bytes=_memory(self._runtime),
            seconds_left=seconds / steps * (self._total - step),
            mfu=self._flops * speed / (self._peak * self._runtime.ranks) if self._peak else None,
            energy_joules=None if math.isnan(joules) else joules,
        )  # fmt: skip
        self._results = []
        self.restart_clock()
        return now

    def advice(self) -> str:
        """One line if training waited much for images, else nothing."""
        share = self._waited_in_all / self._timed_in_all if self._timed_in_all else 0.0
        if share <= MUCH_WAITING:
            return ""
        return (
            f"training waited {share:.0%} of the time for images: use more processor cores, pack the images with "
            "`vitlab data pack`, or store them smaller"
        )


def _totals(results: list[StepResult]) -> tuple[float, float, float]:
    """Loss, correct and rows of this process's steps; waits for the device once."""
    if not results:
        return 0.0, 0.0, 0.0
    losses = torch.stack([result.loss for result in results]).double().sum()
    all_correct = torch.stack([result.correct for result in results]).double().sum()
    loss, correct = torch.stack((losses, all_correct)).tolist()
    return loss, correct, float(sum(result.rows for result in results))


def _peak(runtime: Runtime) -> float | None:
    if runtime.device.type != "cuda" or runtime.compute != torch.bfloat16:
        return None
    found = hardware.recognise(torch.cuda.get_device_name(runtime.device))
    return found.peaks.get("bfloat16") if found else None


def _memory(runtime: Runtime) -> int:
    """Peak bytes of tensors on the GPU; elsewhere the process's bytes now, 0 if unknown."""
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device)
    try:
        with open("/proc/self/statm", encoding="ascii") as numbers:  # noqa: PTH123 - some microseconds, every few steps
            return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def gpu_energy(device: torch.device) -> Callable[[], float]:
    """The energy counter of a GPU: () -> joules since some earlier time, NaN if there is no counter.

    It needs NVML's Python binding (pynvml). The counter (nvmlDeviceGetTotalEnergyConsumption) is of the complete GPU,
    whoever uses it; unlike `torch.cuda.power_draw`, which is of one instant, it misses nothing between two readings.
    """
    if device.type != "cuda":
        return _no_energy
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except ImportError:
        return _no_energy
    except nvml.NVMLError:
        return _no_energy

    def joules() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except nvml.NVMLError:
            return math.nan

    return joules


def _no_energy() -> float:
    return math.nan
