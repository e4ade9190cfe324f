"""What energy training takes, where the machine tells it: the counters of GPUs, processors and memory.

They count for the whole machine, whoever made it work. Source: Linux, Documentation/power/powercap/powercap.rst; NVML,
nvmlDeviceGetTotalEnergyConsumption.
"""

import importlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitlab.runtime import Runtime

POWERCAP = Path("/sys/class/powercap")
MOST_WATTS = 500.0  # of a processor package; at that rate a counter may have gone round more than once unseen

Counter = Callable[[], float]  # joules since some time before


@dataclass(frozen=True)
class Zone:
    """A processor package, or the memory at one.

    Attributes:
        file: its counter, in microjoules.
        range: the counter begins anew at so many microjoules.
    """

    file: Path
    range: int

    def count(self) -> int:
        """Microjoules. Raises OSError or ValueError."""
        return int(self.file.read_text(encoding="ascii"))


class Energy:
    """Energy between looks; nothing is done between them.

    Each process counts its GPU, and the first one of every machine its processors. On a GPU those may be missing, as
    they are often kept from all but the administrator; otherwise what cannot be read leaves all out.

    Args:
        runtime: the device and the processes.
    """

    def __init__(self, runtime: Runtime) -> None:
        first_here = runtime.ranks == 1 or os.environ.get("LOCAL_RANK", "0") == "0"
        self._zones = processor_zones(POWERCAP) if first_here else ()
        self._gpu = _gpu_counter(runtime.device) if runtime.device.type == "cuda" else None
        self._told = self._gpu is not None if runtime.device.type == "cuda" else bool(self._zones) or not first_here
        self._before: tuple[float, list[int], float] | None = None
        self.take()

    def take(self) -> float:
        """Joules since the last call, of this process's share of the counters; not a number where they do not tell."""
        now, before = self._look(), self._before
        self._before = now
        if now is None or before is None:
            return math.nan
        joules = now[2] - before[2]
        for zone, count, old in zip(self._zones, now[1], before[1], strict=True):
            if (now[0] - before[0]) * MOST_WATTS * 1e6 >= zone.range:
                return math.nan
            joules += (count - old) % zone.range / 1e6
        return joules

    def _look(self) -> tuple[float, list[int], float] | None:
        """Seconds, microjoules of the zones and joules of the GPU; none where one of them cannot be read."""
        if not self._told:
            return None
        try:
            counts = [zone.count() for zone in self._zones]
            return time.perf_counter(), counts, self._gpu() if self._gpu else 0.0
        except (OSError, ValueError):
            return None


def processor_zones(powercap: Path) -> tuple[Zone, ...]:
    """The counters of all packages and their memory, in `powercap`; none where one of them cannot be read."""
    zones = []
    try:
        for folder in sorted(powercap.glob("intel-rapl:*")):
            name = (folder / "name").read_text(encoding="ascii").strip()
            # Cores and graphics are parts of a package, and "psys" has the packages in it.
            if name.startswith("package") or name == "dram":
                zone = Zone(folder / "energy_uj", int((folder / "max_energy_range_uj").read_text(encoding="ascii")))
                zone.count()
                zones.append(zone)
    except (OSError, ValueError):
        return ()
    return tuple(zones)


def _gpu_counter(device: torch.device) -> Counter | None:
    """The GPU's own counter, where NVML's Python binding is installed and the GPU has one.

    Power, as `torch.cuda.power_draw` has it, is that of one moment; the counter misses nothing between two looks.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None

    def joules() -> float:
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except nvml.NVMLError as error:
            raise OSError(str(error)) from error

    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        joules()
    except (nvml.NVMLError, OSError):
        return None
    return joules
