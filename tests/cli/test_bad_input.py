"""Every error of the user is one line on stderr and exit code 2, and leaves no files."""

import fcntl
from pathlib import Path

import pytest

from vitlab.cli.main import main


def _refused(capsys, words: list[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("vitlab: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (["--data", "/nowhere/photos"], "/nowhere/photos"),
        (["--data", "fashion-mnits"], "fashion-mnist"),
        (["--set", "model.image_size=30"], "28 and 35"),
        (["--model", "ViT-Q/16"], "ViT-"),
        (["--model", "Vit-B16x"], "vitlab models"),
        (["--set", "optimizer.lr=1"], "optimizer"),
        (["--set", "model.options.layer=1"], "layers"),
        (["--set", "model.options.heads=5"], "5 heads"),
        (["--steps", "0"], "--steps"),
        (["--device", "tpu"], "cpu"),
        (["--device", "cuda:99"], "CUDA devices found"),
        (["--set", "batch_size=100000"], "6,000"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_pretrain_refuses(capsys, tmp_path, change, expected):
    out = tmp_path / "run"
    assert expected in _refused(capsys, ["pretrain", "demo-upstream", "--out", str(out), *change])
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pretrian"], "pretrain"),
        (["pretrain"], "RECIPE"),
        (["pretrain", "demo-upsteam"], "demo-upstream"),
        (["pretrain", "scratch"], "--data"),
        (["finetune", "nowhere/model", "--data", "digits"], "nowhere/model"),
        (["finetune", "nowhere/model"], "--data"),
        (["evaluate", "nowhere/model", "--data", "digits"], "nowhere/model"),
        (["recipes", "show", "finetun"], "finetune"),
        (["report", "nowhere"], "nowhere"),
        (["data", "info", "digit"], "digits"),
    ],
)
def test_words_that_name_nothing(capsys, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in _refused(capsys, words)
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_image_is_named_and_nothing_is_left(capsys, tmp_path, trained, broken_photos):
    out = tmp_path / "run"
    words = ["finetune", str(trained), "--data", str(broken_photos), "--out", str(out), "--set", "batch_size=16"]
    assert "cut " in _refused(capsys, [*words, "--steps", "3"])
    assert not out.exists()


def test_a_run_directory_in_use(capsys, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    with (out / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use" in _refused(capsys, ["pretrain", "demo-upstream", "--steps", "2", "--out", str(out)])
    assert [path.name for path in out.iterdir()] == ["run.lock"]


def test_a_finished_run_is_not_overwritten(capsys, trained):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert "--resume" in _refused(capsys, ["pretrain", "demo-upstream", "--out", str(trained)])
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_images_that_are_none(capsys, tmp_path, trained):
    text = tmp_path / "notes.png"
    text.write_text("not a picture")
    assert "notes.png" in _refused(capsys, ["predict", str(trained), str(text)])
    assert "missing.png" in _refused(capsys, ["predict", str(trained), str(tmp_path / "missing.png")])


def test_another_data_set_than_the_model_knows(capsys, trained):
    assert "finetune" in _refused(capsys, ["evaluate", str(trained), "--data", "digits"])


@pytest.mark.parametrize("shots", ["0", "1,x", "", "1000", "²", "1,٣", "9" * 5000])
def test_shots_that_cannot_be_taken(capsys, trained, shots):
    assert "--shots" in _refused(capsys, ["fewshot", str(trained), "--data", "digits", "--shots", shots])


def test_debug_shows_the_traceback(capsys):
    assert main(["recipes", "show", "nothing", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_out_is_a_file(capsys, tmp_path):
    (tmp_path / "run").write_text("mine")
    words = ["pretrain", "demo-upstream", "--steps", "2", "--out", str(tmp_path / "run")]
    assert "in the way" in _refused(capsys, words)
    assert Path(tmp_path / "run").read_text() == "mine"
