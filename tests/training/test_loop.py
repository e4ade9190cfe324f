"""The loop's laws: one seed gives one model, and stopping anywhere changes nothing."""

import hashlib
import os
import signal
from pathlib import Path

import pytest
import torch

from vitlab import create_model, load_model
from vitlab.data.catalog import open_source
from vitlab.models.build import Model
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import choose, seeded
from vitlab.training.interruption import Interrupted
from vitlab.training.loop import TrainingFailed, train
from vitlab.training.progress import Display
from vitlab.training.run_directory import open_run, read_metrics

STEPS = 9
TINY = dict(patch=7, hidden=16, layers=1, mlp=16, heads=2)


def _recipe(**changes: object) -> Recipe:
    base = with_changes(
        library.find("demo-upstream"),
        [f"steps={STEPS}", "batch_size=12", "averaging=0.9", "checkpoint_every=1", "log_every=1"],
    )
    return with_changes(base, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def _model(recipe: Recipe, dropout: float = 0.1) -> Model:
    with seeded(recipe.seed, "initialisation"):
        return create_model("ViT-Ti/7", num_classes=10, image_size=28, dropout=dropout, **TINY)


def _train(path: Path, recipe: Recipe, hooks=(), resume: bool = True) -> Model:
    source = open_source("digits", "train")
    model = _model(recipe)
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=resume) as run:
        return train(
            recipe,
            model,
            model.preprocessing,
            source,
            run,
            runtime=choose("cpu"),
            display=Display(),
            hooks=hooks,
        )


def _hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


class _SignalAt(Display):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def show(self, moment) -> None:
        if moment.step == self.step:
            os.kill(os.getpid(), self.number)


def _stopped_at(path: Path, recipe: Recipe, step: int, number: int) -> int:
    source = open_source("digits", "train")
    model = _model(recipe)
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=True) as run:
        with pytest.raises(Interrupted) as stop:
            train(
                recipe, model, model.preprocessing, source, run,
                runtime=choose("cpu"), display=_SignalAt(step, number),
            )  # fmt: skip
    return stop.value.exit_code


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("run") / "run"
    return path, _hash(_train(path, _recipe()))


def test_one_seed_gives_one_model(tmp_path, uninterrupted):
    assert _hash(_train(tmp_path / "again", _recipe())) == uninterrupted[1]


def test_another_seed_gives_another_model(tmp_path, uninterrupted):
    assert _hash(_train(tmp_path / "other", _recipe(seed=1))) != uninterrupted[1]


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopping_after_any_step_and_resuming_gives_the_same_model(tmp_path, uninterrupted, step):
    number = signal.SIGTERM if step % 2 else signal.SIGINT
    exit_code = _stopped_at(tmp_path / "run", _recipe(), step, number)
    assert exit_code == (143 if step % 2 else 130)
    assert _hash(_train(tmp_path / "run", _recipe())) == uninterrupted[1]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_stopping_twice_between_checkpoints_gives_the_same_model(tmp_path, uninterrupted):
    """A signal saves at once, whatever the recipe's rhythm; a lost checkpoint is trained again."""
    recipe = _recipe(checkpoint_every=4)
    for step in (3, 6):
        _stopped_at(tmp_path / "run", recipe, step, signal.SIGTERM)
        assert (tmp_path / "run" / "checkpoints" / f"step-{step:08d}").exists()
    assert _hash(_train(tmp_path / "run", recipe)) == uninterrupted[1]


class _CrashAt(Display):
    def __init__(self, step: int) -> None:
        self.step = step

    def show(self, moment) -> None:
        if moment.step == self.step:
            raise RuntimeError("crash")


def test_a_crash_between_checkpoints_is_trained_again_and_logged_once(tmp_path, uninterrupted):
    recipe, source = _recipe(checkpoint_every=4), open_source("digits", "train")
    model = _model(recipe)
    with open_run(tmp_path / "run", recipe, data=source.fingerprint, environment={}, resume=True) as run:
        with pytest.raises(RuntimeError, match="crash"):
            train(recipe, model, model.preprocessing, source, run, runtime=choose("cpu"), display=_CrashAt(7))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    assert _hash(_train(tmp_path / "run", recipe)) == uninterrupted[1]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_the_saved_model_is_the_returned_one_and_is_the_average(uninterrupted):
    path, expected = uninterrupted
    saved = load_model(path / "model")
    assert _hash(saved) == expected
    assert _hash(saved) != _hash(_raw_weights(path))


def _raw_weights(path: Path) -> Model:
    from safetensors.torch import load_file

    model = _model(_recipe())
    model.load_state_dict(load_file(path / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors"))
    return model


def test_hooks_see_the_weights_that_are_kept(tmp_path):
    seen = []

    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        seen.append((step, _hash(model)))
        return {"probe": float(step)}

    model = _train(tmp_path / "run", _recipe(evaluate_every=4), hooks=[hook])
    assert [step for step, _ in seen] == [4, 8, 9]
    assert seen[-1][1] == _hash(model)
    assert [line["probe"] for line in read_metrics(tmp_path / "run") if "probe" in line] == [4.0, 8.0, 9.0]


def test_a_loss_that_is_not_a_number_stops_before_the_update(tmp_path):
    recipe = _recipe(optimizer__learning_rate=1e12, optimizer__clip_norm=0, schedule__warmup_steps=0)
    with pytest.raises(TrainingFailed, match="step 2.*learning_rate"):
        _train(tmp_path / "run", recipe)
    state = _raw_state(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in state.values())


def _raw_state(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    newest = max((path / "checkpoints").iterdir())
    return load_file(newest / "model.safetensors")


def test_training_learns(tmp_path):
    recipe = _recipe(
        steps=100, batch_size=64, averaging=0, schedule__warmup_steps=5, checkpoint_every=0,
        optimizer__learning_rate=5e-3, augmentation__flip="false", augmentation__crop="none",
    )  # fmt: skip
    _train(tmp_path / "run", recipe)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run")]
    assert sum(losses[-5:]) / 5 < 0.8 * losses[0]
