"""What accelerators can do, as their makers state it: memory, and peaks of dense matrix products."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vitlab.errors import UserError, unknown_name

# A name with one of these is of another chip, or of a part of one.
OTHERS = frozenset({"ti", "d", "super", "laptop", "mobile", "mig", "nvl"})


@dataclass(frozen=True)
class Hardware:
    """One device.

    Attributes:
        name: as it is usually called.
        memory: bytes.
        peaks: FLOP/s of dense matrix products by precision; precisions that it lacks are missing.
    """

    name: str
    memory: int
    peaks: Mapping[str, float]

    def peak(self, precision: str) -> float:
        """FLOP/s at a precision.

        Raises:
            UserError: the device does not have it.
        """
        if precision not in self.peaks:
            raise UserError(f"{self.name} has no {precision}: choose {' or '.join(self.peaks)}")
        return self.peaks[precision]


def _device(name: str, gigabytes: float, **peaks: float) -> Hardware:
    return Hardware(name, round(gigabytes * 1e9), {key: value * 1e12 for key, value in peaks.items()})


DEVICES = (
    # One core, half of a chip. The paper counts days of these.
    _device("TPUv3-core", 16 * 2**30 / 1e9, bfloat16=61.5),
    # float16 in place of bfloat16, as fast.
    _device("V100", 32, float32=15.7, bfloat16=125),
    _device("A100", 80, float32=19.5, bfloat16=312),
    _device("A100-40GB", 40, float32=19.5, bfloat16=312),
    _device("H100", 80, float32=67, bfloat16=989.4, fp8=1978.9),
    _device("H100-PCIe", 80, float32=51, bfloat16=756, fp8=1513),
    _device("H200", 141, float32=67, bfloat16=989.4, fp8=1978.9),
    _device("B200", 180, float32=75, bfloat16=2250, fp8=4500),
    _device("L40S", 48, float32=91.6, bfloat16=362, fp8=733),
    _device("RTX-3090", 24, float32=35.6, bfloat16=71),
    _device("RTX-4090", 24, float32=82.6, bfloat16=165.2, fp8=330.3),
)


def names() -> list[str]:
    """All devices."""
    return [device.name for device in DEVICES]


def find(name: str) -> Hardware:
    """A device by its name, whatever its case.

    Raises:
        UserError: it is unknown.
    """
    for device in DEVICES:
        if device.name.lower() == name.strip().lower().replace(" ", "-"):
            return device
    raise unknown_name("hardware", name, names(), listing=f"known are {', '.join(names())}")


def recognise(named: str) -> Hardware | None:
    """A device by what its driver calls it, such as "NVIDIA H100 80GB HBM3"; None if it is unknown."""
    words = set(re.split(r"[^a-z0-9]+", named.lower()))
    fitting = [device for device in DEVICES if _words_of(device) <= words]
    # "H100 PCIe" is an H100 too, but the longer name says more.
    return max(fitting, key=lambda device: len(_words_of(device)), default=None) if not words & OTHERS else None


def _words_of(device: Hardware) -> set[str]:
    return set(device.name.lower().split("-"))


def device_hours(exaflops: float, peak: float, utilisation: float) -> float:
    """Hours that one device needs.

    Args:
        exaflops: compute in 10**18 FLOPs.
        peak: of the device, in FLOP/s.
        utilisation: share of the peak that is reached, in (0, 1].

    Raises:
        UserError: `utilisation` is not in (0, 1].
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"utilisation {utilisation} is not a share of the peak: give a number in (0, 1], such as 0.4")
    return exaflops * 1e18 / (peak * utilisation) / 3600
