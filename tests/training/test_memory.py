"""Memory: batches are cut where they do not fit, and running out is one line."""

import pytest
import torch

from vitlab import create_model
from vitlab.errors import TrainingFailed
from vitlab.recipes import library
from vitlab.recipes.memory import training_memory
from vitlab.recipes.schema import with_changes
from vitlab.runtime import choose
from vitlab.training import memory

CPU = choose("cpu")
RECIPE = with_changes(library.load_recipe("scratch"), ["batch_size=64", "scale.accumulation=auto"])


def _model():
    return create_model("ViT-Ti/16", num_classes=10, image_size=64)


def _parts(monkeypatch, free: int, **changes: object) -> int:
    monkeypatch.setattr(memory, "available_bytes", lambda runtime: free)
    recipe = with_changes(RECIPE, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])
    return memory.parts_of_a_batch(recipe, _model(), CPU)


def test_a_batch_that_fits_is_not_cut(monkeypatch):
    assert _parts(monkeypatch, 2**40) == 1


def test_the_parts_are_the_fewest_that_fit(monkeypatch):
    free = 2**30 + training_memory(_model().config, 20).peak
    assert _parts(monkeypatch, free) == 4  # 64 images, 20 at a time
    assert _parts(monkeypatch, free, scale__recompute="true") < 4
    assert _parts(monkeypatch, free, averaging=0.9) >= 4


def test_a_number_is_taken_as_it_is(monkeypatch):
    assert _parts(monkeypatch, 0, scale__accumulation=5) == 5
    assert _parts(monkeypatch, 0, scale__accumulation=500) == 64


def test_a_model_that_cannot_fit_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="recompute"):
        _parts(monkeypatch, 1000)


def test_the_hosts_free_memory_is_bounded_by_a_containers_limit(monkeypatch, tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:  64 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes(CPU) == 64 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(CPU) == 64 * 1024
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    assert memory.available_bytes(CPU) == 30000


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_is_one_line_with_advice(error):
    with pytest.raises(TrainingFailed, match=r"step 7: .* 64 images at once; .*scale.accumulation=auto") as told:
        with memory.shortage_as_failure(RECIPE, CPU, 7):
            raise error
    assert "\n" not in str(told.value)


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(TrainingFailed), memory.shortage_as_failure(RECIPE, CPU, 1):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shape"), memory.shortage_as_failure(RECIPE, CPU, 1):
        raise RuntimeError("shape mismatch")
