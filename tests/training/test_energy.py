"""Energy comes from the GPU's own counter, and is left out if there is none."""

import math
import sys
import types

import pytest
import torch

from vitlab import create_model
from vitlab.runtime import Runtime, choose
from vitlab.training import metrics
from vitlab.training.metrics import MetricsTracker, gpu_energy

CPU = choose("cpu")


class _Nvml(types.ModuleType):
    """What NVML's binding does for one GPU; its counter is in millijoules."""

    class NVMLError(Exception):
        pass

    def __init__(self, counts: list[float]) -> None:
        super().__init__("pynvml")
        self.counts = counts
        self.started = False

    def nvmlInit(self) -> None:
        self.started = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != "GPU-1234" or not self.started:
            raise self.NVMLError(uuid)
        return uuid

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> float:
        assert handle == "GPU-1234"
        if not self.counts:
            raise self.NVMLError("Not Supported")
        return self.counts.pop(0)


@pytest.fixture
def gpu(monkeypatch):
    """A runtime on a GPU that is not there, and what makes its counter show the given numbers."""

    def show(*counts: float, uuid: str = "1234") -> Runtime:
        monkeypatch.setitem(sys.modules, "pynvml", _Nvml(list(counts)))
        about = types.SimpleNamespace(uuid=uuid)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
        return Runtime(torch.device("cuda", 0), torch.bfloat16)

    return show


def test_joules_of_a_gpu(gpu):
    joules = gpu_energy(gpu(1000, 8000).device)
    assert (joules(), joules()) == (1.0, 8.0)
    assert math.isnan(joules())  # it fails


@pytest.mark.parametrize("case", ["no counter", "another GPU", "no binding"])
def test_a_gpu_without_a_counter(gpu, monkeypatch, case):
    runtime = gpu(*([] if case == "no counter" else [0, 0]), uuid="5678" if case == "another GPU" else "1234")
    if case == "no binding":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    assert math.isnan(gpu_energy(runtime.device)())


def test_a_processor_has_no_energy_counter():
    assert math.isnan(gpu_energy(CPU.device)())


def test_energy_is_logged_without_that_of_an_evaluation(monkeypatch):
    counts = iter([0.0, 3.0, 3.0, 53.0, 60.0, 60.0])
    monkeypatch.setattr(metrics, "gpu_energy", lambda device: lambda: next(counts))
    tracker = MetricsTracker(create_model("ViT-Ti/7", num_classes=10, image_size=28), CPU, 10)
    assert tracker.read(1, 0.1).numbers()["energy_joules"] == pytest.approx(3)
    tracker.restart_clock()
    assert tracker.read(2, 0.1).energy_joules == pytest.approx(7)


def test_unknown_energy_is_not_logged():
    tracker = MetricsTracker(create_model("ViT-Ti/7", num_classes=10, image_size=28), CPU, 10)
    assert "energy_joules" not in tracker.read(1, 0.1).numbers()
