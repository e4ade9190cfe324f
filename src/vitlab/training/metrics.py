"""The metrics of a run: means over the steps since the last ones, throughput, waiting, memory and energy."""

import importlib
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from vitlab.models.build import Model
from vitlab.recipes import cost, hardware
from vitlab.runtime import Runtime, all_reduce_sum
from vitlab.training.progress import StepMetrics
from vitlab.training.step import StepResult

MUCH_WAITING = 0.05


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
