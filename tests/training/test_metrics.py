"""Means over the steps since the last look, the share of waiting, and the share of a device's peak."""

from pathlib import Path

import pytest
import torch

from vitlab import create_model
from vitlab.recipes import cost
from vitlab.runtime import Runtime, choose
from vitlab.training import metrics
from vitlab.training.metrics import MetricsTracker, StepMetrics
from vitlab.training.step import StepResult

CPU = choose("cpu")
MODEL = create_model("ViT-Ti/7", num_classes=10, image_size=28)


class _Clock:
    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(metrics.time, "perf_counter", lambda: self.now)


def _result(loss: float, correct: int, rows: int) -> StepResult:
    return StepResult(torch.tensor(loss), torch.tensor(correct), rows, torch.tensor(1.0), torch.tensor(True))


def test_means_are_over_images_not_over_steps(monkeypatch):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 100)
    meter.add(_result(6.0, 1, 3), waited=0.5)
    meter.add(_result(9.0, 1, 1), waited=0.0)
    clock.now += 2.0
    now = meter.read(2, 0.1)
    assert (now.loss, now.accuracy) == (15 / 4, 2 / 4)
    assert now.images_per_second == 2
    assert now.data_wait == 0.25
    assert now.seconds_left == 98
    assert now.mfu is None


def test_only_what_came_since_the_last_look_counts(monkeypatch):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 10)
    meter.add(_result(5.0, 0, 1), waited=1.0)
    clock.now += 1
    meter.read(1, 0.1)
    clock.now += 50  # an evaluation
    meter.restart_clock()
    meter.add(_result(1.0, 1, 1), waited=0.0)
    clock.now += 1
    now = meter.read(2, 0.1)
    assert (now.loss, now.images_per_second, now.data_wait) == (1.0, 1.0, 0.0)


def test_a_look_starts_the_clock_again(monkeypatch):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 10)
    for step in (1, 2):
        meter.add(_result(1.0, 1, 1), waited=1.0)
        clock.now += 2
        now = meter.read(step, 0.1)
        assert (now.images_per_second, now.data_wait) == (0.5, 0.5)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it")
def test_memory_is_what_the_process_has():
    lines = Path("/proc/self/status").read_text().splitlines()
    resident = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    assert MetricsTracker(MODEL, CPU, 10).read(1, 0.1).memory_bytes == pytest.approx(resident, rel=0.1)


def test_a_look_after_no_step_is_no_error(monkeypatch):
    _Clock(monkeypatch)
    assert MetricsTracker(MODEL, CPU, 10).read(1, 0.1).loss == 0


def test_mfu_is_three_forward_passes_over_the_peak(monkeypatch):
    clock = _Clock(monkeypatch)
    monkeypatch.setattr(metrics, "_peak", lambda runtime: 1e9)
    meter = MetricsTracker(MODEL, CPU, 10)
    meter.add(_result(1.0, 1, 8), waited=0.0)
    clock.now += 4
    assert meter.read(1, 0.1).mfu == pytest.approx(3 * cost.executed_flops(MODEL.config) * 2 / 1e9)
    assert cost.executed_flops(MODEL.config) < cost.flops(MODEL.config)


@pytest.mark.parametrize(
    ("named", "compute", "peak"),
    [
        ("NVIDIA H100 PCIe", torch.bfloat16, 756e12),
        ("NVIDIA H200", torch.float32, None),
        ("toaster", torch.bfloat16, None),
    ],
)
def test_peaks_are_those_of_the_list_of_hardware(monkeypatch, named, compute, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: named)
    assert metrics._peak(Runtime(torch.device("cuda"), compute)) == peak


@pytest.mark.parametrize(("waited", "advised"), [(0.04, False), (0.06, True)])
def test_advice_is_given_where_much_is_waited(monkeypatch, waited, advised):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 10)
    meter.add(_result(1.0, 1, 1), waited=waited)
    clock.now += 1
    meter.read(1, 0.1)
    advice = meter.advice()
    assert bool(advice) == advised
    assert ("6% of the time" in advice) == advised


def test_advice_is_about_the_whole_run(monkeypatch):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 10)
    for step, waited in enumerate((1.0, 0.0)):
        meter.add(_result(1.0, 1, 1), waited=waited)
        clock.now += 2
        meter.read(step, 0.1)
    assert "25% of the time" in meter.advice()


def test_no_more_than_all_of_the_time_is_waited(monkeypatch):
    clock = _Clock(monkeypatch)
    meter = MetricsTracker(MODEL, CPU, 10)
    meter.add(_result(1.0, 1, 1), waited=1.25)  # a part of it before the clock was started
    clock.now += 1
    assert meter.read(1, 0.1).data_wait == 1.0


def test_several_processes_share_the_waiting_and_have_as_many_peaks(monkeypatch):
    clock = _Clock(monkeypatch)
    monkeypatch.setattr(metrics, "_peak", lambda runtime: 1e9)
    monkeypatch.setattr(metrics, "all_reduce_sum", lambda runtime, own: tuple(2 * number for number in own))
    meter = MetricsTracker(MODEL, Runtime(CPU.device, CPU.compute, rank=0, ranks=2), 10)
    meter.add(_result(6.0, 1, 4), waited=0.5)
    clock.now += 2
    now = meter.read(1, 0.1)
    assert (now.loss, now.accuracy, now.images_per_second, now.data_wait) == (1.5, 0.25, 4.0, 0.25)
    assert now.mfu == pytest.approx(3 * cost.executed_flops(MODEL.config) * 4 / 2e9)


def test_step_metrics_as_text():
    now = StepMetrics(7, 1.23456, 0.5, 1234.5, 1e-3, 0.031, 5 * 10**9, 3.0, 0.421)
    words = now.text()
    assert words == "loss 1.235  acc 50.0%  lr 0.001  1,234 img/s  mfu 42%  wait 3%  5.0 GB"
    assert "mfu" not in StepMetrics(7, 1.0, 0.5, 10.0, 1e-3).numbers()
