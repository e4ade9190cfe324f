"""Checkpoints: what is saved comes back bit for bit, and what is damaged is passed over."""

import json

import pytest
import torch
from torch import nn

from vitlab.errors import UserError
from vitlab.recipes.schema import OptimizerConfig
from vitlab.runtime import choose
from vitlab.training import checkpoint
from vitlab.training.checkpoint import CheckpointWriter
from vitlab.training.optimizers import PolyakAverage, build_optimizer
from vitlab.training.state import TrainingState

CPU = choose("cpu")


def _state(seed: int, *, averaged: bool = True, kind: str = "adamw") -> TrainingState:
    torch.manual_seed(seed)
    return _state_of(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3)), averaged, kind)


def _state_of(model: nn.Module, averaged: bool = True, kind: str = "adamw") -> TrainingState:
    weights = dict(model.named_parameters())
    optimizer = build_optimizer(weights.values(), OptimizerConfig(kind=kind))
    return TrainingState(weights, optimizer, PolyakAverage(weights, 0.9) if averaged else None)


def save_checkpoint(folder, step, state):
    with CheckpointWriter(folder, state, CPU, keep=2) as saver:
        saver.begin(step)
        saver.wait()
        assert not saver.problem()
    return folder / f"step-{step:08d}"


def load_newest(folder, state):
    return checkpoint.load_newest(folder, state, CPU)


def _output(weights, inputs):
    hidden = nn.functional.gelu(inputs @ weights["0.weight"].T + weights["0.bias"])
    return hidden @ weights["2.weight"].T + weights["2.bias"]


def _trained(seed: int, steps: int, **options) -> TrainingState:
    state = _state(seed, **options)
    _advance(state, 0, steps)
    return state


def _advance(state: TrainingState, first: int, last: int) -> None:
    for step in range(first, last):
        inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        state.optimizer.zero_grad()
        _output(state.weights, inputs).square().mean().backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update(state.weights)


def _bits(state: TrainingState) -> list[bytes]:
    tensors = [*state.weights.values()]
    if state.average is not None:
        tensors += state.average.weights().values()
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("averaged", [True, False])
def test_going_on_from_a_checkpoint_equals_never_stopping(tmp_path, kind, averaged):
    through = _trained(0, 9, kind=kind, averaged=averaged)
    stopped = _trained(0, 4, kind=kind, averaged=averaged)
    save_checkpoint(tmp_path, 4, stopped)
    resumed = _state(1, kind=kind, averaged=averaged)
    assert load_newest(tmp_path, resumed) == 4
    _advance(resumed, 4, 9)
    assert _bits(resumed) == _bits(through)


@pytest.mark.parametrize("lost", ["optimizer", "average", "average_updates"])
def test_losing_any_part_of_the_state_changes_the_end(tmp_path, lost):
    through = _trained(0, 9)
    save_checkpoint(tmp_path, 4, _trained(0, 4))
    resumed = _state(1)
    load_newest(tmp_path, resumed)
    if lost == "optimizer":
        resumed.optimizer.state.clear()
    elif lost == "average":
        for value in resumed.average.means.values():
            value.zero_()
    else:
        resumed.average.updates = 0
    _advance(resumed, 4, 9)
    assert _bits(resumed) != _bits(through)


def test_no_checkpoint_is_step_zero(tmp_path):
    assert load_newest(tmp_path / "none", _state(0)) == 0


def test_only_the_newest_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, _state(0))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "missing"])
def test_a_damaged_newest_is_passed_over_and_said(tmp_path, caplog, damage):
    save_checkpoint(tmp_path, 3, _trained(0, 3))
    newest = save_checkpoint(tmp_path, 6, _trained(0, 6))
    target = newest / ("manifest.json" if damage == "manifest" else "optimizer.safetensors")
    data = target.read_bytes()
    if damage == "missing":
        target.unlink()
    elif damage == "flip":
        target.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        target.write_bytes(data[: len(data) // 2])
    resumed = _state(1)
    assert load_newest(tmp_path, resumed) == 3
    assert _bits(resumed) == _bits(_trained(0, 3))
    assert "step-00000006" in caplog.text


def test_when_none_is_readable_nothing_is_lost_in_silence(tmp_path):
    (save_checkpoint(tmp_path, 3, _state(0)) / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="readable"):
        load_newest(tmp_path, _state(0))


def test_another_version_is_refused(tmp_path):
    manifest = save_checkpoint(tmp_path, 3, _state(0)) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 99}))
    with pytest.raises(UserError, match="version 99"):
        load_newest(tmp_path, _state(0))


def test_another_model_and_another_averaging_are_refused(tmp_path):
    save_checkpoint(tmp_path, 3, _state(0))
    with pytest.raises(UserError, match="another model"):
        load_newest(tmp_path, _state_of(nn.Linear(2, 2)))
    with pytest.raises(UserError, match="averaging"):
        load_newest(tmp_path, _state(0, averaged=False))
