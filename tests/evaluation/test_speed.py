"""The sweep stops where memory ends, whoever finds out: the arithmetic or the device."""

import pytest
import torch

from vitlab.evaluation import speed
from vitlab.recipes import memory, zoo
from vitlab.runtime import choose

CPU = choose("cpu")


def test_batches_that_the_arithmetic_refuses_are_not_tried():
    config = zoo.configure("ViT-Ti/16", {"image_size": 32})
    enough_for_3 = memory.KEPT_FREE + memory.inference_memory(config, 3)
    found = speed.sweep("ViT-Ti/16", 32, [4, 1, 2], CPU, device_bytes=enough_for_3, repetitions=1)
    assert list(found.images_per_second) == [1, 2]
    assert (found.largest_batch, found.smallest_refused, found.predicted_largest) == (2, 4, 3)
    assert found.peak == max(found.images_per_second.values())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("DefaultCPUAllocator: not enough memory")]
)
def test_a_device_that_runs_out_ends_the_sweep(monkeypatch, error):
    def seconds(model, image_size, batch, runtime, repetitions):
        if batch > 2:
            raise error
        return 0.5 * batch

    monkeypatch.setattr(speed, "_seconds", seconds)
    found = speed.sweep("ViT-Ti/16", 32, [1, 2, 4, 8], CPU)
    assert found.images_per_second == {1: 2.0, 2: 2.0}
    assert (found.smallest_refused, found.best_batch, found.predicted_largest) == (4, 1, None)


def test_other_errors_are_not_swallowed(monkeypatch):
    def seconds(*arguments):
        raise RuntimeError("kernel broken")

    monkeypatch.setattr(speed, "_seconds", seconds)
    with pytest.raises(RuntimeError, match="broken"):
        speed.sweep("ViT-Ti/16", 32, [1], CPU)


def test_nothing_fits():
    found = speed.sweep("ViT-Ti/16", 32, [1, 2], CPU, device_bytes=10**6)
    assert (found.images_per_second, found.peak, found.largest_batch, found.best_batch) == ({}, 0.0, 0, 0)


def test_memory_of_this_machine():
    assert speed.device_memory(CPU) is None or speed.device_memory(CPU) > 2**20
