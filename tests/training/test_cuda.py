"""What only a GPU shows: training there keeps the laws that it keeps on the CPU. Skipped where there is none."""

import hashlib
from pathlib import Path

import pytest
import torch

from rounding import distance, without_key_biases
from vitlab import create_model
from vitlab.datasets.catalog import open_source
from vitlab.errors import TrainingFailed
from vitlab.models.build import Model
from vitlab.progress import Progress
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import choose, seeded
from vitlab.training import memory, objectives
from vitlab.training.run_directory import open_run, read_metrics
from vitlab.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
STEPS = 12


def _recipe(*changes: str) -> Recipe:
    common = [f"steps={STEPS}", "batch_size=16", "averaging=0.9", "checkpoint_every=3", "log_every=1"]
    return with_changes(library.load_recipe("demo-upstream"), [*common, *changes])


def _model() -> Model:
    with seeded(0, "initialisation"):
        return create_model("ViT-Ti/7", num_classes=10, image_size=28, hidden=32, layers=2, mlp=64, heads=2)


def _train(path: Path, recipe: Recipe, progress: Progress | None = None) -> Model:
    source, model = open_source("digits", "train"), _model()
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=True) as run:
        return Trainer(recipe, model, source, run, runtime=choose("cuda"), progress=progress or Progress()).fit()


def _hash(model: Model) -> str:
    digest = hashlib.sha256()
    for _, value in sorted(model.state_dict().items()):
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


class _CrashAt(Progress):
    def update(self, done, text="") -> None:
        if done == 8:
            raise RuntimeError("crash")


def test_a_resumed_run_ends_with_the_same_bytes(tmp_path):
    through = _train(tmp_path / "through", _recipe())
    with pytest.raises(RuntimeError, match="crash"):
        _train(tmp_path / "run", _recipe(), _CrashAt())
    assert _hash(_train(tmp_path / "run", _recipe())) == _hash(through)


def test_what_is_no_number_moves_nothing_though_it_is_seen_a_step_late(tmp_path, monkeypatch):
    total, calls = objectives.total, []

    def poisoned(logits_BK, targets, objective):
        calls.append(None)
        return total(logits_BK, targets, objective) * (float("nan") if len(calls) == 6 else 1.0)

    monkeypatch.setattr(objectives, "total", poisoned)
    with pytest.raises(TrainingFailed, match="step 6: loss nan"):
        _train(tmp_path / "run", _recipe("log_every=12", "checkpoint_every=1"))
    monkeypatch.setattr(objectives, "total", total)
    resumed = _train(tmp_path / "run", _recipe("log_every=12", "checkpoint_every=1"))
    assert _hash(resumed) == _hash(_train(tmp_path / "through", _recipe("log_every=12", "checkpoint_every=1")))


def test_the_parts_of_a_batch_that_fit_are_found_by_trying(tmp_path):
    recipe = _recipe("scale.accumulation=auto")
    model = create_model("ViT-Ti/7", num_classes=10, image_size=28).to("cuda")
    assert memory.parts_of_a_batch(recipe, model, choose("cuda")) == 1
    assert all(parameter.grad is None for parameter in model.parameters())


def test_running_out_is_one_line(tmp_path):
    recipe = _recipe()
    with pytest.raises(TrainingFailed, match=r"scale\.accumulation=auto"):
        with memory.shortage_as_failure(recipe, choose("cuda"), 1):
            torch.empty(2**50, dtype=torch.uint8, device="cuda")


def test_the_share_of_the_peak_is_logged_where_it_is_known(tmp_path):
    _train(tmp_path / "run", _recipe())
    last = read_metrics(tmp_path / "run")[-1]
    assert last["memory_bytes"] > 0
    if "H100" in torch.cuda.get_device_name() or "H200" in torch.cuda.get_device_name():
        assert 0 < last["mfu"] < 1


@pytest.mark.parametrize("way", ["blocks", "step"])
def test_compiled_training_learns_about_the_same(tmp_path, way):
    """bfloat16 rounds each update's terms to 2^-9 of themselves: ten such roundings are 2 % of the way gone."""
    recipe = ["optimizer.kind=sgd", "optimizer.learning_rate=0.05", "averaging=0"]
    plain = _train(tmp_path / "plain", _recipe(*recipe)).state_dict()
    compiled = _train(tmp_path / "compiled", _recipe(*recipe, f"scale.compile={way}")).state_dict()
    plain, compiled, start = (without_key_biases(weights) for weights in (plain, compiled, _model().state_dict()))
    assert distance(compiled, plain) <= 10 * 2.0**-9 * distance(plain, start)
