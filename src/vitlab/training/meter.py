"""What a run's numbers are: means over the steps since the last look, and where the time went."""

import math
import os
import time

import torch

from vitlab.models.build import Model
from vitlab.recipes import cost, hardware
from vitlab.runtime import Runtime, all_reduce_sum
from vitlab.training.energy import Energy
from vitlab.training.progress import Moment
from vitlab.training.step import StepResult

MUCH_WAITING = 0.05


class Meter:
    """Adds up steps. Reading waits for the device, so it is not done every step.

    Args:
        model: gives the arithmetic of an image.
        runtime: the processes.
        total: steps of the whole run.
    """

    def __init__(self, model: Model, runtime: Runtime, total: int) -> None:
        self._runtime, self._total = runtime, total
        self._flops = cost.FORWARD_AND_BACKWARD * cost.executed_flops(model.config)
        self._peak = _peak(runtime)
        self._energy = Energy(runtime)
        self._results: list[StepResult] = []
        self._waited = self._waited_in_all = self._timed_in_all = 0.0
        self._since = time.perf_counter()

    def add(self, result: StepResult, waited: float) -> None:
        """Take a step in, and the seconds for which its images were waited for."""
        self._results.append(result)
        self._waited += waited

    def restart_clock(self) -> None:
        """What was done since the last look was no training."""
        self._energy.take()
        self._start_clock()

    def _start_clock(self) -> None:
        self._since, self._waited = time.perf_counter(), 0.0

    def read(self, step: int, rate: float) -> Moment:
        """The numbers since the last look; all processes must look at the same steps."""
        loss, hits, rows = _totals(self._results)
        seconds = max(1e-9, time.perf_counter() - self._since)
        steps = max(1, len(self._results))
        own = (loss, hits, rows, self._waited / self._runtime.ranks, self._energy.take())
        loss, hits, rows, waited, joules = all_reduce_sum(self._runtime, own)
        self._waited_in_all += waited
        self._timed_in_all += seconds
        speed = rows / seconds
        moment = Moment(
            step=step, loss=loss / max(1, rows), accuracy=hits / max(1, rows), images_per_second=speed,
            learning_rate=rate, data_wait=min(1.0, waited / seconds), memory_bytes=_memory(self._runtime),
            seconds_left=seconds / steps * (self._total - step),
            mfu=self._flops * speed / (self._peak * self._runtime.ranks) if self._peak else None,
            energy_joules=None if math.isnan(joules) else joules,
        )  # fmt: skip
        self._results = []
        self._start_clock()
        return moment

    def advice(self) -> str:
        """One line where training waited much for images, else nothing."""
        share = self._waited_in_all / self._timed_in_all if self._timed_in_all else 0.0
        if share <= MUCH_WAITING:
            return ""
        return (
            f"training waited {share:.0%} of the time for images: use more processor cores, pack the images with "
            "`vitlab data pack`, or store them smaller"
        )


def _totals(results: list[StepResult]) -> tuple[float, float, float]:
    """Loss, hits and rows of this process's steps; waits for the device once."""
    if not results:
        return 0.0, 0.0, 0.0
    losses = torch.stack([result.loss for result in results]).double().sum()
    hits = torch.stack([result.hits for result in results]).double().sum()
    loss, hit = torch.stack((losses, hits)).tolist()
    return loss, hit, float(sum(result.rows for result in results))


def _peak(runtime: Runtime) -> float | None:
    if runtime.device.type != "cuda" or runtime.compute != torch.bfloat16:
        return None
    found = hardware.recognise(torch.cuda.get_device_name(runtime.device))
    return found.peaks.get("bfloat16") if found else None


def _memory(runtime: Runtime) -> int:
    """Most bytes that tensors had on the GPU; elsewhere what the process has now, 0 where that is not told."""
    if runtime.device.type == "cuda":
        return torch.cuda.max_memory_allocated(runtime.device)
    try:
        with open("/proc/self/statm", encoding="ascii") as numbers:  # noqa: PTH123 - some microseconds, every few steps
            return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
