"""`vitlab dedup`: finds planted copies in folders of real photos, writes its files, and refuses what says nothing."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlab.cli.main import main
from vitlab.datasets.catalog import open_source
from vitlab.dedup.clean_list import without


def _save(path: Path, image: Image.Image, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


@pytest.fixture
def folders(photos, tmp_path) -> tuple[Path, Path]:
    """Training photos, and test photos of which three are changed copies of training ones and one the same file."""
    train, test = tmp_path / "train_photos", tmp_path / "test_photos"
    files = sorted(photos.rglob("scene*.*")) + sorted(photos.rglob("grass*.*"))
    for number, path in enumerate(files):
        folder = "scene" if path.name.startswith("scene") else "grass"
        with Image.open(path) as image:
            if number % 2:
                _save(train / "train" / folder / f"{path.stem}.png", image)
                _save(train / "val" / folder / f"{path.stem}.png", image)
            elif number > 7:
                _save(test / "val" / folder / f"{path.stem}.png", image)
    scene = {number: Image.open(train / "train" / "scene" / name) for number, name in
             enumerate(sorted(path.name for path in (train / "train" / "scene").iterdir()))}  # fmt: skip
    _save(test / "val" / "scene" / "low.jpg", scene[0].convert("RGB"), quality=40)
    _save(test / "val" / "scene" / "turned.png", scene[1].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    _save(test / "val" / "scene" / "half.png", scene[2].resize((scene[2].width * 2 // 3, scene[2].height * 2 // 3)))
    (test / "val" / "scene" / "same.png").write_bytes(Path(scene[3].filename).read_bytes())
    for folder in ("scene", "grass"):
        _save(test / "train" / folder / "one.png", Image.new("RGB", (9, 9)))
    for image in scene.values():
        image.close()
    return train, test


def _json(capsys, words: list[str]) -> dict:
    capsys.readouterr()
    assert main(["dedup", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _error(capsys, words: list[str]) -> str:
    capsys.readouterr()
    assert main(["dedup", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    return error[0]


def _words(folders, out: Path) -> list[str]:
    return ["--train", str(folders[0]), "--test", str(folders[1]), "--out", str(out)]


def test_copies_are_found_listed_drawn_and_left_out(capsys, folders, tmp_path):
    out = tmp_path / "found"
    table = _json(capsys, _words(folders, out))
    train = open_source(str(folders[0]), "train")
    rows = list(csv.DictReader(io.StringIO((out / "duplicates.csv").read_text())))
    found = {Path(row["test_image"]).name: (row["detector"], row["mirrored"]) for row in rows}
    assert found == {
        "low.jpg": ("near", "no"),
        "turned.png": ("near", "yes"),
        "half.png": ("near", "no"),
        "same.png": ("file", "no"),
    }
    for row in rows:
        assert train.key(int(row["train_index"])) == row["train_image"]
    (numbers,) = (value for name, value in table["numbers"].items() if name != "train")
    assert numbers["by_detector"] == {"file": 1, "pixels": 0, "near": 3, "embedding": 0}
    assert numbers["copied"] == 4
    assert table["numbers"]["train"] == {"images": len(train), "removed": 4, "skipped": 0}
    assert json.loads((out / "results" / "dedup.json").read_text())["numbers"] == table["numbers"]
    clean = without(train, out / "clean.json")
    gone = {row["train_image"] for row in rows}
    assert len(gone) == 4
    assert [clean.key(i) for i in range(len(clean))] == [k for k in map(train.key, range(len(train))) if k not in gone]
    with Image.open(out / "pairs.png") as sheet:
        assert sheet.width > 1000
        assert np.asarray(sheet.convert("L")).std() > 20
    assert not list(out.rglob("*.part"))


def test_shares_of_the_work_give_the_same_files(capsys, folders, tmp_path):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    _json(capsys, _words(folders, whole))
    for rank in ("1", "0"):
        table = _json(capsys, [*_words(folders, shared), "--rank", rank, "--ranks", "2"])
        assert not (shared / "clean.json").exists()
        assert "without --rank" in table["notes"][0]
    _json(capsys, _words(folders, shared))
    for name in ("duplicates.csv", "clean.json", "pairs.png"):
        assert (shared / name).read_bytes() == (whole / name).read_bytes()


def test_no_copies_is_said_and_still_a_clean_list(capsys, tmp_path):
    out = tmp_path / "digits"
    words = ["--train", "digits", "--test", "fashion-mnist", "--out", str(out), "--method", "hash"]
    (tmp_path / "digits").mkdir()
    (out / "pairs.png").write_bytes(b"of an earlier call")
    capsys.readouterr()
    assert main(["dedup", *words]) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    assert not (out / "pairs.png").exists()
    train = open_source("digits", "train")
    assert without(train, out / "clean.json") is train


def test_copies_within_one_set(capsys, folders, tmp_path):
    scene = folders[0] / "train" / "scene"
    first = sorted(scene.iterdir())[0]
    (scene / f"z{first.name}").write_bytes(first.read_bytes())
    out = tmp_path / "within"
    table = _json(capsys, ["--train", str(folders[0]), "--out", str(out)])
    assert table["numbers"]["train"]["removed"] == 1
    clean = json.loads((out / "clean.json").read_text())
    assert [Path(key).name for _, key in clean["removed"]] == [f"z{first.name}"]


def test_embedding_finds_the_copies_too(capsys, folders, trained, tmp_path):
    words = [*_words(folders, tmp_path / "out"), "--model", str(trained), "--device", "cpu", "--set", "cosine=0.9999"]
    table = _json(capsys, [*words, "--method", "embedding"])
    (numbers,) = (value for name, value in table["numbers"].items() if name != "train")
    assert numbers["by_detector"]["file"] == 1
    assert numbers["by_detector"]["near"] == 0
    assert numbers["pairs"] == numbers["by_detector"]["file"] + numbers["by_detector"]["embedding"]
    both = _json(capsys, [*words, "--method", "both"])
    (numbers,) = (value for name, value in both["numbers"].items() if name != "train")
    assert numbers["by_detector"]["near"] == 3


def test_unreadable_images_stop_it_or_are_counted(capsys, folders, tmp_path):
    broken = [folders[0] / "train" / "scene" / "aa cut.png", folders[1] / "val" / "grass" / "bb cut.jpg"]
    for path in broken:
        path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    words = _words(folders, tmp_path / "out")
    assert "bb cut.jpg" in _error(capsys, words)
    table = _json(capsys, [*words, "--bad-images", "skip"])
    skipped = [note for note in table["notes"] if note.startswith("skipped 1 image of ")]
    assert [name in note for note, name in zip(skipped, ("bb cut.jpg", "aa cut.png"), strict=True)] == [True, True]
    assert table["numbers"]["train"]["skipped"] == 1
    broken[1].unlink()
    assert "aa cut.png" in _error(capsys, _words(folders, tmp_path / "new"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test", "digits", "--rank", "2", "--ranks", "2"], "shares 0 to 1"),
        (["--test", "digits", "--method", "embedding"], "--model MODEL"),
        (["--test", "digits", "--model", "x"], "only --method embedding"),
        (["--test", "digits", "--set", "naer=1"], "did you mean near"),
        (["--test", "digits", "--test", "digits"], "give it once"),
        (["--test", "no-such-set"], "no-such-set"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, words, message):
    assert message in _error(capsys, ["--train", "fashion-mnist", "--out", str(tmp_path / "out"), *words])
    assert not (tmp_path / "out").exists()


def test_the_same_images_as_test_set_are_refused(capsys, folders, tmp_path):
    val = folders[1] / "val"
    for path in list(val.rglob("*.*")):
        path.unlink()
    for path in (folders[0] / "train").rglob("*.png"):
        target = val / path.relative_to(folders[0] / "train")
        target.write_bytes(path.read_bytes())
    assert "--train alone" in _error(capsys, _words(folders, tmp_path / "out"))


def test_an_empty_folder_is_refused(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no class folders" in _error(capsys, ["--train", "digits", "--test", str(tmp_path / "empty")])
