"""The loop's laws: one seed gives one model, and stopping anywhere changes nothing."""

import dataclasses
import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rounding import assert_same_but_for_rounding
from vitlab import create_model, load_model
from vitlab.data import loader
from vitlab.datasets.catalog import open_source
from vitlab.errors import Interrupted, TrainingFailed
from vitlab.models.build import Model
from vitlab.progress import Progress
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runtime import choose, seeded
from vitlab.training.run_directory import open_run, read_metrics
from vitlab.training.trainer import Trainer

STEPS = 9
TINY = dict(patch=7, hidden=16, layers=1, mlp=16, heads=2)


def _recipe(**changes: object) -> Recipe:
    base = with_changes(
        library.load_recipe("demo-upstream"),
        [f"steps={STEPS}", "batch_size=12", "averaging=0.9", "checkpoint_every=1", "log_every=1"],
    )
    return with_changes(base, [f"{key.replace('__', '.')}={value}" for key, value in changes.items()])


def _model(recipe: Recipe, dropout: float = 0.1) -> Model:
    with seeded(recipe.seed, "initialisation"):
        return create_model("ViT-Ti/7", num_classes=10, image_size=28, dropout=dropout, **TINY)


def _train(path: Path, recipe: Recipe, hooks=(), resume: bool = True, dropout: float = 0.1) -> Model:
    source = open_source("digits", "train")
    model = _model(recipe, dropout)
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=resume) as run:
        return Trainer(
            recipe,
            model,
            source,
            run,
            runtime=choose("cpu"),
            progress=Progress(),
            hooks=hooks,
        ).fit()


def _hash(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _assert_same_model(found: Model, expected: Model, steps: int) -> None:
    start = _model(_recipe()).state_dict()
    terms = 12 * 17  # images x tokens
    assert_same_but_for_rounding(found.state_dict(), expected.state_dict(), start, steps=steps, terms=terms)


class _SignalAt(Progress):
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def update(self, done, text="") -> None:
        if done == self.step:
            os.kill(os.getpid(), self.number)


def _stopped_at(path: Path, recipe: Recipe, step: int, number: int, hooks=()) -> int:
    source = open_source("digits", "train")
    model = _model(recipe)
    with open_run(path, recipe, data=source.fingerprint, environment={}, resume=True) as run:
        with pytest.raises(Interrupted) as stop:
            Trainer(
                recipe, model, source, run,
                runtime=choose("cpu"), progress=_SignalAt(step, number), hooks=hooks,
            ).fit()  # fmt: skip
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


class _CrashAt(Progress):
    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, done, text="") -> None:
        if done == self.step:
            raise RuntimeError("crash")


def test_a_crash_between_checkpoints_is_trained_again_and_logged_once(tmp_path, uninterrupted):
    recipe, source = _recipe(checkpoint_every=4), open_source("digits", "train")
    model = _model(recipe)
    with open_run(tmp_path / "run", recipe, data=source.fingerprint, environment={}, resume=True) as run:
        with pytest.raises(RuntimeError, match="crash"):
            Trainer(recipe, model, source, run, runtime=choose("cpu"), progress=_CrashAt(7)).fit()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    assert _hash(_train(tmp_path / "run", recipe)) == uninterrupted[1]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(1, STEPS + 1))


def test_the_saved_model_is_the_returned_one_and_is_the_average(uninterrupted):
    path, expected = uninterrupted
    saved = load_model(path / "model")
    assert _hash(saved) == expected
    assert _hash(saved) != _hash(_raw_weights(path))


def _raw_weights(path: Path) -> Model:
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


def test_held_out_images_say_which_weights_are_kept(tmp_path):
    """The score rises, falls, and stays low: training ends after two evaluations without a better one."""
    scores = iter([0.2, 0.6, 0.5, 0.4, 0.9])
    seen = {}

    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        seen[step] = _hash(model)
        return {"validation_top1": next(scores)}

    model = _train(
        tmp_path / "run",
        _recipe(evaluate_every=1, early_stopping__patience=2, validation__share=0.1, checkpoint_every=0),
        hooks=[hook],
    )
    assert list(seen) == [1, 2, 3, 4]
    assert _hash(model) == seen[2]
    assert _hash(load_model(tmp_path / "run" / "model")) == seen[2]
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert "step-00000002" in kept


def test_the_best_checkpoint_outlives_newer_ones(tmp_path):
    scores = {step: 1.0 if step == 3 else 0.5 for step in range(1, STEPS + 1)}

    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        return {"validation_top1": scores[step]}

    _train(tmp_path / "run", _recipe(evaluate_every=1, checkpoint__keep=1), hooks=[hook])
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000003", f"step-{STEPS:08d}"]


def test_a_stopped_run_remembers_its_best(tmp_path, uninterrupted):
    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        return {"validation_top1": 1 / step}

    recipe = _recipe(evaluate_every=1)
    through = _train(tmp_path / "through", recipe, hooks=[hook])
    _stopped_at(tmp_path / "run", recipe, 5, signal.SIGTERM, hooks=[hook])
    assert _hash(_train(tmp_path / "run", recipe, hooks=[hook])) == _hash(through)


def test_an_evaluation_that_was_broken_off_is_made_up_for(tmp_path, uninterrupted):
    asked = []

    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        asked.append(step)
        if asked == [4]:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"probe": float(step)}

    recipe = _recipe(evaluate_every=4)
    with pytest.raises(Interrupted, match="after step 4") as stop:
        _train(tmp_path / "run", recipe, hooks=[hook])
    assert stop.value.exit_code == 143
    assert _hash(_train(tmp_path / "run", recipe, hooks=[hook])) == uninterrupted[1]
    assert asked == [4, 4, 8, 9]
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "probe" in line] == [4, 8, 9]


def test_an_evaluation_that_was_made_is_not_made_again(tmp_path):
    asked = []

    def hook(step: int, model: torch.nn.Module) -> dict[str, float]:
        asked.append(step)
        return {"probe": float(step)}

    recipe, source = _recipe(evaluate_every=4, checkpoint_every=4), open_source("digits", "train")
    model = _model(recipe)
    with open_run(tmp_path / "run", recipe, data=source.fingerprint, environment={}, resume=True) as run:
        with pytest.raises(RuntimeError, match="crash"):
            Trainer(
                recipe, model, source, run,
                runtime=choose("cpu"), progress=_CrashAt(6), hooks=[hook],
            ).fit()  # fmt: skip
    _train(tmp_path / "run", recipe, hooks=[hook])
    assert asked == [4, 8, 9]


@pytest.mark.parametrize("parts", [2, 5, 12])
def test_parts_of_a_batch_are_learned_from_as_the_whole(tmp_path, parts):
    options = dict(optimizer__kind="sgd", optimizer__learning_rate=0.05, averaging=0)
    whole = _train(tmp_path / "whole", _recipe(**options), dropout=0.0)
    cut = _train(tmp_path / "cut", _recipe(**options, scale__accumulation=parts), dropout=0.0)
    _assert_same_model(cut, whole, STEPS)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
@pytest.mark.parametrize(("key", "value"), [("recompute", "true"), ("compile", "blocks"), ("compile", "step")])
def test_recomputing_and_compiling_change_nothing_but_rounding(tmp_path, monkeypatch, key, value):
    # Tracing is what could go wrong here; generating code takes a minute, and is torch's own business.
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    options = dict(optimizer__kind="sgd", optimizer__learning_rate=0.05, averaging=0, steps=4)
    plain = _train(tmp_path / "plain", _recipe(**options), dropout=0.0)
    other = _train(tmp_path / "other", _recipe(**options, **{f"scale__{key}": value}), dropout=0.0)
    assert list(other.state_dict()) == list(plain.state_dict())
    _assert_same_model(other, plain, 4)


def test_recomputing_draws_the_same_dropout(tmp_path):
    options = dict(optimizer__kind="sgd", optimizer__learning_rate=0.05, averaging=0, steps=4)
    plain = _train(tmp_path / "plain", _recipe(**options))
    again = _train(tmp_path / "again", _recipe(**options, scale__recompute="true"))
    _assert_same_model(again, plain, 4)


def test_bfloat16_keeps_weights_and_moments_in_float32(tmp_path):
    _train(tmp_path / "run", _recipe(steps=3, scale__precision="bfloat16"))
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    for kind in ("model", "optimizer", "average"):
        assert {value.dtype for value in load_file(newest / f"{kind}.safetensors").values()} == {torch.float32}
    single = _train(tmp_path / "single", _recipe(steps=3))
    assert _hash(single) != _hash(load_model(tmp_path / "run" / "model"))


def test_mixed_images_and_their_parts(tmp_path):
    """Mixup of the whole batch, cut after mixing: one part or three learn the same."""
    options = dict(optimizer__kind="sgd", optimizer__learning_rate=0.05, averaging=0, augmentation__mixup=0.5, steps=4)
    whole = _train(tmp_path / "whole", _recipe(**options), dropout=0.0)
    cut = _train(tmp_path / "cut", _recipe(**options, scale__accumulation=3), dropout=0.0)
    plain = _train(tmp_path / "plain", _recipe(**(options | {"augmentation__mixup": 0})), dropout=0.0)
    assert _hash(plain) != _hash(whole)
    _assert_same_model(cut, whole, 4)


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path, monkeypatch):
    """One image fewer in the second batch, none at all in the third, which then changes nothing."""
    batches = loader.training_batches

    def thinned(*given, **named):
        for batch in batches(*given, **named):
            left = {1: 11, 2: 0}.get(batch.step, 12)
            yield _first_rows(batch, left)

    monkeypatch.setattr(loader, "training_batches", thinned)
    recipe = _recipe(steps=4)
    _train(tmp_path / "run", recipe)
    manifest = json.loads((tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").read_text())
    assert manifest["progress"]["skipped_images"] == 13
    assert manifest["progress"]["skipped_steps"] == 1
    assert manifest["average_updates"] == 3
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


def _first_rows(batch: loader.Batch, rows: int) -> loader.Batch:
    names = ("images_BHWC", "labels_B", "indices_B", "epochs_B", "positions_B")
    shorter = {name: getattr(batch, name)[:rows] for name in names}
    return dataclasses.replace(batch, **shorter, skipped=("unreadable",) * (12 - rows))


def test_numbers_that_are_logged(tmp_path):
    _train(tmp_path / "run", _recipe(steps=3))
    last = read_metrics(tmp_path / "run")[-1]
    assert {"step", "loss", "accuracy", "images_per_second", "learning_rate", "data_wait", "memory_bytes"} <= set(last)
    assert 0 <= last["data_wait"] <= 1
    assert last["memory_bytes"] > 1e6
