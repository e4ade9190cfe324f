"""What training verbs share: held-out images, new heads, several processes' words."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from vitlab import load_model
from vitlab.cli.main import main
from vitlab.cli.training import RecipeChanges
from vitlab.recipes import library
from vitlab.recipes.schema import with_changes
from vitlab.training.run_directory import read_metrics
from vitlab.weights.formats import native

QUICK = [
    "pretrain", "demo-upstream", "--device", "cpu", "--data", "digits", "--steps", "4", "--set=batch_size=32",
    "--set=model.options.hidden=16", "--set=model.options.layers=1", "--set=model.options.heads=2",
]  # fmt: skip


def test_held_out_images_are_judged_instead_of_test_images(tmp_path, capsys):
    out = tmp_path / "run"
    words = [
        "--set=validation.share=0.1",
        "--set=evaluate_every=2",
        "--set=early_stopping.patience=1",
        "--out",
        str(out),
    ]
    assert main([*QUICK, *words]) == 0
    named = {name for line in read_metrics(out) for name in line}
    assert "validation_top1" in named
    assert "test_top1" not in named
    summary = json.loads((out / "results" / "accuracy.json").read_text())["summary"]
    assert "test images are classified correctly" in summary


def test_a_new_head_starts_at_its_bias(tmp_path, capsys):
    words = ["--set=objective.head_bias=-10", "--set=objective.loss=sigmoid", "--set=optimizer.learning_rate=1e-9"]
    assert main([*QUICK, *words, "--out", str(tmp_path / "run")]) == 0
    torch.testing.assert_close(load_model(tmp_path / "run").head.bias, torch.full((10,), -10.0))


@pytest.mark.parametrize(
    ("batch", "log", "expected"),
    [
        (None, None, []),
        ("auto", None, ["scale.accumulation=auto"]),
        ("64", "tensorboard", ["batch_size=64", "log=tensorboard"]),
    ],
)
def test_batch_and_log_are_keys_of_the_recipe(batch, log, expected):
    recipe = library.load_recipe("demo-upstream")
    assert RecipeChanges(batch=batch, log=log).applied_to(recipe) == with_changes(recipe, expected)


@pytest.mark.parametrize(
    "words",
    [
        ["pretrain", "demo-upstream", "--steps", "3", "--set=steps=4"],
        ["pretrain", "demo-upstream", "--seed", "1", "--set=seed=2"],
        ["finetune", "weights", "--data", "digits", "--set=init_from=others"],
        ["pretrain", "demo-upstream", "--data", "digits", "--set=data.source=fashion-mnist"],
    ],
)
def test_a_key_that_is_set_twice_is_refused(capsys, words):
    assert main(words) == 2
    assert "is set twice: give it once" in capsys.readouterr().err


def test_a_batch_is_cut_by_itself(tmp_path, capsys):
    assert main([*QUICK, "--set=scale.accumulation=auto", "--out", str(tmp_path / "run")]) == 0


def test_other_processes_of_torchrun_keep_quiet(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert main(["pretrain", "no-such-recipe"]) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["pretrain", "no-such-recipe"]) == 2
    assert "unknown recipe" in capsys.readouterr().err


def test_a_process_that_was_started_anew_goes_on(tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "run")
    assert main([*QUICK, "--out", out]) == 0
    assert main([*QUICK, "--out", out]) == 2
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main([*QUICK, "--out", out]) == 0


def test_a_place_that_cannot_be_written_to_is_refused_before_training(capsys):
    assert main([*QUICK, "--out", "/proc/run"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vitlab: cannot write to /proc/run: ")
    assert not Path("/proc/run").exists()


def test_a_full_disk_at_the_very_end_is_one_line_and_mended_by_resume(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(native, "save_file", full)
        assert main([*QUICK, "--out", str(out)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"vitlab: cannot write the model to {out / 'model'}: No space left on device: free some space"
    )
    assert main([*QUICK, "--out", str(out), "--resume"]) == 0
    load_model(out)
