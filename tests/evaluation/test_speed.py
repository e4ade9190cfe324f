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


def test_images_are_random_and_always_the_same(monkeypatch):
    seen = []

    class Model(torch.nn.Module):
        def forward(self, images_BCHW):
            seen.append(images_BCHW)
            return images_BCHW.mean()

    monkeypatch.setattr(speed, "_built", lambda config, runtime: Model())
    before = torch.get_rng_state()
    for _ in range(2):
        speed.sweep("ViT-Ti/16", 32, [3], CPU, repetitions=1)
    assert torch.equal(torch.get_rng_state(), before)
    first = seen[0]
    assert first.shape == (3, 3, 32, 32)
    assert (first.min(), first.max()) == (pytest.approx(-1, abs=0.01), pytest.approx(1, abs=0.01))
    assert first.unique().numel() > 0.99 * first.numel()
    assert seen[1] is first
    assert torch.equal(seen[-1], first)


def test_memory_of_this_machine():
    assert speed.device_memory(CPU) is None or speed.device_memory(CPU) > 2**20
