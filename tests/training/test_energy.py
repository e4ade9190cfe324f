"""Energy comes from the machine's counters, which go round, and is left out where one of them does not tell."""

import math
import sys
import types
from pathlib import Path

import pytest
import torch

from vitlab import create_model
from vitlab.runtime import Runtime, choose
from vitlab.training import energy
from vitlab.training.energy import Energy, processor_zones
from vitlab.training.meter import Meter

RANGE = 262_143_328_850
CPU = choose("cpu")


def _zone(powercap: Path, folder: str, name: str, count: int = 0) -> Path:
    path = powercap / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{count}\n")
    return path / "energy_uj"


@pytest.fixture
def powercap(tmp_path, monkeypatch):
    """One package with its cores and its memory, another package, and the whole machine, as Linux shows them."""
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    (tmp_path / "intel-rapl").mkdir()
    _zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    _zone(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    _zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    _zone(tmp_path, "intel-rapl:1", "package-1", RANGE - 2_000_000)
    _zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    _zone(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be put on by hand."""
    now = [100.0]
    monkeypatch.setattr(energy.time, "perf_counter", lambda: now[0])
    return now


def _grow(powercap: Path, joules: float) -> None:
    for file in powercap.glob("intel-rapl*/energy_uj"):
        file.write_text(f"{(int(file.read_text()) + round(joules * 1e6)) % RANGE}\n")


def test_packages_and_their_memory_are_counted_once(powercap):
    found = [zone.file.parent.name for zone in processor_zones(powercap)]
    assert found == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]


def test_joules_since_the_last_look_also_where_a_counter_goes_round(powercap, clock):
    meter = Energy(CPU)
    assert meter.take() == 0
    for joules in (1.5, 1.5, 200.0):  # the second package's counter goes round in the second
        clock[0] += 10
        _grow(powercap, joules)
        assert meter.take() == pytest.approx(3 * joules)


def test_a_counter_that_may_have_gone_round_twice_is_not_believed(powercap, clock):
    meter = Energy(CPU)
    clock[0] += 520  # at 500 W it goes round in 524 s
    assert meter.take() == 0
    clock[0] += 525
    assert math.isnan(meter.take())
    clock[0] += 1
    _grow(powercap, 2)
    assert meter.take() == pytest.approx(6)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj", "name"])
@pytest.mark.parametrize("damage", [None, b"\xff", b""])
def test_a_part_that_is_not_readable_leaves_all_out(powercap, file, damage):
    path = powercap / "intel-rapl:1" / file
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    if (file, damage) != ("name", b""):  # a zone of another name
        assert math.isnan(Energy(CPU).take())


def test_a_range_of_nothing_leaves_all_out(powercap, clock):
    (powercap / "intel-rapl:1" / "max_energy_range_uj").write_text("0\n")
    assert math.isnan(Energy(CPU).take())


@pytest.mark.parametrize(
    "fail",
    [Path.unlink, lambda file: file.write_text(""), lambda file: file.write_bytes(b"\xff")],
)
def test_a_counter_that_fails_later_leaves_that_look_out(powercap, clock, fail):
    meter = Energy(CPU)
    file = powercap / "intel-rapl:0" / "energy_uj"
    text = file.read_text()
    fail(file)
    assert math.isnan(meter.take())
    file.write_text(text)
    assert math.isnan(meter.take())
    assert meter.take() == 0


def test_no_folder_no_energy(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nowhere")
    assert math.isnan(Energy(CPU).take())


def test_of_the_processes_of_a_machine_the_first_reads_its_processors(powercap, clock, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = Energy(Runtime(CPU.device, CPU.compute, rank=1, ranks=2))
    monkeypatch.setenv("LOCAL_RANK", "0")
    first = Energy(Runtime(CPU.device, CPU.compute, rank=0, ranks=2))
    _grow(powercap, 4)
    assert (first.take(), second.take()) == (pytest.approx(12), 0)


def test_a_process_alone_reads_the_processors_whatever_its_number(powercap, clock, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")  # left over from something else
    meter = Energy(CPU)
    _grow(powercap, 4)
    assert meter.take() == pytest.approx(12)


def test_the_meter_tells_energy_where_it_is_read_and_not_of_an_evaluation(powercap, clock, monkeypatch):
    model = create_model("ViT-Ti/7", num_classes=10, image_size=28)
    meter = Meter(model, CPU, 10)
    _grow(powercap, 1)
    assert meter.read(1, 0.1).numbers()["energy_joules"] == pytest.approx(3)
    _grow(powercap, 50)
    meter.restart_clock()
    _grow(powercap, 2)
    assert meter.read(2, 0.1).energy_joules == pytest.approx(6)
    monkeypatch.setattr(energy, "POWERCAP", powercap / "nowhere")
    assert "energy_joules" not in Meter(model, CPU, 10).read(1, 0.1).numbers()


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


def test_a_gpus_counter_and_the_processors(gpu, powercap, clock):
    meter = Energy(gpu(1000, 1000, 8000, 8000))
    assert meter.take() == 7
    _grow(powercap, 1)
    assert meter.take() == pytest.approx(3)
    assert math.isnan(meter.take())  # it fails


def test_a_gpu_alone(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "nowhere")
    assert Energy(gpu(0, 500, 2500)).take() == 2


def test_a_gpu_beside_processors_that_only_root_may_read(gpu, powercap):
    (powercap / "intel-rapl:1" / "energy_uj").unlink()
    assert Energy(gpu(0, 500, 2500)).take() == 2


def test_a_gpu_that_does_not_tell_leaves_all_out(gpu, powercap, monkeypatch):
    assert math.isnan(Energy(gpu()).take())
    assert math.isnan(Energy(gpu(0, 0, 0, uuid="5678")).take())
    runtime = gpu(0, 0, 0)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert math.isnan(Energy(runtime).take())
