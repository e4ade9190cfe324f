"""Every verb does its work on small runs and real images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import vitlab
from vitlab.cli.main import SPINS, VERBS, main
from vitlab.recipes import library
from vitlab.recipes.schema import from_toml

from .conftest import QUICK


def _json(capsys, words: list[str]) -> dict:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys, verb):
    assert main([verb, "--help"]) == 0
    assert f"Usage: vitlab {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_spin_briefly_unless_the_environment_says_otherwise(monkeypatch, given, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    environment = {**os.environ, **given}
    monkeypatch.setattr(os, "environ", environment)
    assert main(["recipes", "--help"]) == 0
    assert environment.get("GOMP_SPINCOUNT") == expected


def test_python_m_vitlab_is_the_same(tmp_path):
    done = subprocess.run([sys.executable, "-m", "vitlab", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip()[0].isdigit()


def test_a_run_holds_what_it_should(trained):
    names = {path.name for path in trained.iterdir()}
    assert {"recipe.toml", "environment.json", "metrics.jsonl", "checkpoints", "model", "results"} <= names
    assert from_toml((trained / "recipe.toml").read_text(), "run").steps == 6
    assert not list(trained.rglob("*.pkl"))
    assert not list(trained.rglob("*.part"))
    model = vitlab.load_model(trained)
    assert model.classes[0] == "T-shirt/top"
    assert model.config.image_size == 28


def test_evaluate_counts_every_image_once(capsys, trained):
    table = _json(capsys, ["evaluate", str(trained), "--data", "fashion-mnist"])
    assert table["numbers"]["images"] == 1000
    assert sum(map(sum, table["numbers"]["confusion"])) == 1000
    stored = json.loads((trained / "results" / "accuracy.json").read_text())
    assert stored["numbers"]["top1"] == table["numbers"]["top1"]


def test_fewshot_has_a_row_for_pixels(capsys, trained):
    table = _json(capsys, ["fewshot", str(trained), "--data", "digits", "--shots", "5,1", "--seeds", "2"])
    assert list(table["numbers"]) == ["model", "raw pixels", "settings"]
    assert list(table["numbers"]["model"]) == ["1", "5"]
    assert 0.5 < sum(table["numbers"]["raw pixels"]["5"]) / 2 < 1


def test_finetune_on_a_folder_of_real_photos_then_predict(capsys, tmp_path, trained, photos):
    out = tmp_path / "run"
    words = ["finetune", str(trained), "--data", str(photos), "--out", str(out), "--steps", "40"]
    table = _json(capsys, [*words, "--set", "batch_size=16", "--set", "optimizer.learning_rate=3e-3"])
    assert table["numbers"]["classes"] == ["grass", "scene"]
    images = [str(path) for path in sorted(photos.rglob("*.png"))]
    named = _json(capsys, ["predict", str(out), *images])["numbers"]
    assert list(named) == images
    for probabilities in named.values():
        assert set(probabilities) == {"grass", "scene"}
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_finetune_starts_from_a_zero_head_and_the_new_resolution(capsys, tmp_path, trained):
    """With a learning rate of next to nothing the model still has its zero head, so every class is as probable."""
    words = ["finetune", str(trained), "--recipe", "demo-downstream", "--data", "digits", "--steps", "1"]
    words += ["--set", "optimizer.learning_rate=1e-30", "--out", str(tmp_path / "run")]
    assert main([*words, "--set", "schedule.warmup_steps=0"]) == 0
    model = vitlab.load_model(tmp_path / "run")
    assert model.config.image_size == 35
    assert float(model.head.weight.detach().abs().max()) < 1e-20
    assert model.preprocessing.size == (35, 35)


def test_predict_reads_a_folder(capsys, trained, photos):
    named = _json(capsys, ["predict", str(trained), str(photos), "--top", "2"])["numbers"]
    assert len(named) == 24
    assert all(len(probabilities) == 2 for probabilities in named.values())


def test_inspect_draws_pictures(capsys, tmp_path, trained, photos):
    assert main(["inspect", str(trained), "--images", str(photos), "--out", str(tmp_path / "looks")]) == 0
    drawn = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len(drawn) >= 4
    for path in drawn:
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 100


def test_report_is_one_file(capsys, trained):
    assert main(["report", str(trained)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == trained / "report.html"
    assert "Accuracy on fashion-mnist" in page.read_text()


@pytest.mark.parametrize("to", ["vitlab", "flax", "timm", "transformers", "torchvision", "onnx"])
def test_convert_certifies_every_format(capsys, tmp_path, trained, photos, to):
    suffix = {"flax": ".npz", "onnx": ".onnx", "torchvision": ".safetensors"}.get(to, "")
    out, model = tmp_path / f"out{suffix}", trained
    if to == "torchvision":  # has no tanh GELU
        model = tmp_path / "erf"
        made = vitlab.create_model("ViT-Ti/7", gelu="erf", image_size=28, hidden=16, layers=1, heads=2, mlp=16)
        vitlab.save_model(made, model)
    numbers = _json(capsys, ["convert", str(model), str(out), "--to", to, "--images", str(photos)])["numbers"]
    assert numbers["passed"]
    assert numbers["difference"] < 1e-4
    if to in ("timm", "transformers"):
        assert numbers["through"].startswith(to)
    elif to == "onnx":
        assert numbers["through"].startswith("onnxruntime")


def test_convert_refuses_what_a_format_cannot_hold(capsys, tmp_path, trained):
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(trained), str(out), "--to", "torchvision"]) == 2
    assert "gelu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_lists_the_zoo(capsys):
    table = _json(capsys, ["models"])
    rows = {row[0]: row for row in table["rows"]}
    assert rows["ViT-B/16"][1:] == ["86.6 M", 197, "35.1 G"]
    assert rows["BiT-R50x1"][2] is None
    assert set(rows) == set(vitlab.list_models())


def test_recipes_lists_and_shows_what_runs_unchanged(capsys, tmp_path):
    assert [row[0] for row in _json(capsys, ["recipes"])["rows"]] == library.names()
    for name in library.names():
        capsys.readouterr()
        assert main(["recipes", "show", name]) == 0
        assert from_toml(capsys.readouterr().out, name) == library.load_recipe(name)


def test_data_info_counts_and_draws(capsys, tmp_path, photos):
    sheet = tmp_path / "sheet.png"
    table = _json(capsys, ["data", "info", str(photos), "--sheet", str(sheet)])
    counts = table["numbers"]["train"]["classes"], table["numbers"]["test"]["classes"]
    assert {name: counts[0][name] + counts[1][name] for name in counts[0]} == {"grass": 12, "scene": 12}
    with Image.open(sheet) as picture:
        assert picture.width > 100
    named = [row[0] for row in _json(capsys, ["data"])["rows"]]
    assert named[:3] == ["fashion-mnist", "digits", "fashion-mnist-full"]
    assert {"imagenet", "cifar10", "vtab/dtd"} <= set(named)


def test_stopping_a_run_by_its_process_and_resuming(tmp_path):
    """The same law as in the loop's tests, through the real command and a real signal."""
    words = [sys.executable, "-m", "vitlab", "pretrain", "demo-upstream", "--steps", "150", "--set", "batch_size=16"]
    words += [*QUICK, "--set", "log_every=1", "--device", "cpu"]
    subprocess.run([*words, "--out", str(tmp_path / "through")], check=True, capture_output=True)
    with subprocess.Popen([*words, "--out", str(tmp_path / "stopped")], stdout=-3, stderr=subprocess.PIPE) as process:
        metrics = tmp_path / "stopped" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            pass
        process.terminate()
        message = process.stderr.read().decode()
    assert process.returncode == 143
    assert "--resume" in message
    subprocess.run([*words, "--out", str(tmp_path / "stopped"), "--resume"], check=True, capture_output=True)
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in ("through", "stopped")]
    assert weights[0] == weights[1]
