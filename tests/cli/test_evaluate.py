"""`vitlab evaluate` and `vitlab fewshot` with all of their options."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import vitlab
from vitlab.cli.fewshot import names_of
from vitlab.cli.main import main
from vitlab.errors import UserError
from vitlab.report.comparison import accuracies_of
from vitlab.report.content import read_folder


def _json(capsys, words):
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _rows(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


def _refused(capsys, words):
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_the_dump_agrees_with_the_table(capsys, trained, tmp_path):
    file = tmp_path / "dump.csv"
    table = _json(capsys, ["evaluate", trained, "--data", "fashion-mnist", "--dump", file, "--batch-size", "97"])
    rows = _rows(file)
    assert len(rows) == table["numbers"]["images"] == 1000
    assert np.mean([row["correct"] == "1" for row in rows]) == pytest.approx(table["numbers"]["top1"])
    low, high = table["numbers"]["interval"]
    assert low < table["numbers"]["top1"] < high
    assert sum(part["images"] for part in table["numbers"]["reliability"]) == 1000
    assert table["columns"][-1] == "95 % interval"
    assert all(len(row) == 4 for row in table["rows"])


def test_images_that_cannot_be_read_are_left_out_and_counted(capsys, tmp_path, broken_photos):
    model = tmp_path / "model"
    made = vitlab.create_model("ViT-Ti/8", num_classes=2, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    made.classes = ("grass", "scene")
    vitlab.save_model(made, model)
    words = ["evaluate", model, "--data", broken_photos]
    assert "cut" in _refused(capsys, words)
    numbers = _json(capsys, [*words, "--bad-images", "skip"])["numbers"]
    assert numbers["left_out"] > 0
    assert sum(map(sum, numbers["confusion"])) == numbers["images"]


@pytest.fixture
def imagenet(tmp_path):
    """Three validation images under their own names, two synsets, and a model of 1,000 classes that prefers 1 to 0."""
    root = tmp_path / "imagenet"
    for synset, number in (("n01440764", 1), ("n01440764", 2), ("n01440765", 3)):
        folder = root / "val" / synset
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"ILSVRC2012_val_{number:08d}.JPEG")
    for label in range(1000):
        folder = root / "train" / f"n{1440764 + label:08d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "a.JPEG")
    made = vitlab.create_model("ViT-Ti/8", num_classes=1000, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    made.head.bias.data[1] = 5.0
    vitlab.save_model(made, tmp_path / "model")
    return root


def test_real(capsys, tmp_path, imagenet):
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[1], [], [0], *[[7]] * 49_997]))
    words = ["evaluate", tmp_path / "model", "--data", f"imagenet-real={imagenet}", "--real", real]
    numbers = _json(capsys, [*words, "--dump", tmp_path / "dump.csv"])["numbers"]
    assert (numbers["images"], numbers["excluded"], numbers["top1"]) == (2, 1, 0.5)
    rows = _rows(tmp_path / "dump.csv")
    assert [row["correct"] for row in rows] == ["1", "", "0"]
    assert [row["class"] for row in rows] == ["n01440764", "n01440764", "n01440765"]
    assert {row["predicted_class"] for row in rows} == {"n01440765"}
    assert numbers["old_top1"] == pytest.approx(1 / 3)
    real.write_text(json.dumps([[]] * 50_000))
    assert "has a label" in _refused(capsys, words)
    real.write_text("[]")
    assert "50,000" in _refused(capsys, words)


def test_a_run_keeps_what_was_found_on_each_data_set(capsys, tmp_path, trained, photos, broken_photos):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    made = vitlab.create_model("ViT-Ti/8", num_classes=2, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    made.classes = ("grass", "scene")
    vitlab.save_model(made, run / "model")
    before = {file.name for file in (run / "results").iterdir()}
    real = tmp_path / "broken-real"
    shutil.copytree(broken_photos, real)
    for data in (photos, broken_photos, real, real):
        _json(capsys, ["evaluate", run, "--data", data, "--bad-images", "skip"])
    added = {file.name for file in (run / "results").iterdir()} - before
    assert added == {f"evaluate-{photos.name}.json", "evaluate-broken.json", "evaluate-broken-real.json"}
    assert {photos.name, "broken", "broken-real"} <= set(accuracies_of(read_folder(run).own))


def test_imagenet_and_real_stand_in_the_papers_rows(capsys, tmp_path, imagenet, trained):
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[1], [], [0], *[[7]] * 49_997]))
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "model")
    shutil.copytree(tmp_path / "model", run / "model")
    for words in (["imagenet"], ["imagenet", "--real", real], ["imagenet-real"]):
        numbers = _json(capsys, ["evaluate", run, "--data", f"{words[0]}={imagenet}", *words[1:]])["numbers"]
        assert ("confusion" in numbers, "confusion_pairs" in numbers) == (False, len(words) == 1)
    assert sum(count for _, _, count in numbers["confusion_pairs"]) == numbers["images"] == 3
    found = accuracies_of(read_folder(run).own)
    assert found["ImageNet"] == pytest.approx(100 / 3)
    assert found["ReaL"] == 50


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(capsys, tmp_path, trained):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "results")
    (run / "results").touch()
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", "fashion-mnist"]) == 2
    printed = capsys.readouterr()
    assert "Accuracy on fashion-mnist" in printed.out
    assert printed.err.count("\n") == 1
    assert "evaluate-fashion-mnist.json" in printed.err


def test_objectnet(capsys, tmp_path):
    root = tmp_path / "objectnet"
    (root / "mappings").mkdir(parents=True)
    names = {f"folder{number}": f"Thing {number}" for number in range(313)}
    (root / "mappings/folder_to_objectnet_label.json").write_text(json.dumps(names))
    (root / "mappings/objectnet_to_imagenet_1k.json").write_text(json.dumps({"Thing 0": "a; b", "Thing 5": "c"}))
    (root / "mappings/imagenet_to_label_2012_v2").write_text("a\nb\nc\n")
    ids = root / "mappings/pytorch_to_imagenet_2012_id.json"
    ids.write_text(json.dumps({"1": 0, "2": 1, "3": 2}))
    for number in range(313):
        (root / f"images/folder{number}").mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(root / f"images/folder{number}/x.png")
    made = vitlab.create_model("ViT-Ti/8", num_classes=1000, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    made.head.bias.data[2] = 5.0
    vitlab.save_model(made, tmp_path / "model")
    words = ["evaluate", tmp_path / "model", "--data", f"objectnet={root}"]
    numbers = _json(capsys, [*words, "--dump", tmp_path / "dump.csv"])["numbers"]
    assert (numbers["images"], numbers["excluded"], numbers["top1"]) == (2, 311, 0.5)
    rows = {row["class"]: row for row in _rows(tmp_path / "dump.csv")}
    assert {name: row["correct"] for name, row in rows.items() if row["correct"]} == {"Thing 0": "1", "Thing 5": "0"}
    assert {row["predicted_class"] for row in rows.values()} == {"Thing 0"}
    assert rows["Thing 1"]["probability_of_label"] == ""
    ids.write_text("{}")
    assert "no class named" in _refused(capsys, words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dump", "x.txt"], ".csv"),
        (["--batch-size", "0"], "--batch-size"),
        (["--real", "/nowhere/real.json"], "/nowhere/real.json"),
        (["--data", ""], "no name"),
    ],
)
def test_mistakes_of_evaluate(capsys, trained, words, expected):
    assert expected in _refused(capsys, ["evaluate", trained, "--data", "fashion-mnist", *words])


def test_fewshot_of_several_data_sets_probes_and_a_layer_from_the_cache(capsys, trained, tmp_path):
    cache = tmp_path / "cache"
    words = ["fewshot", trained, "--data", "digits", "--data", "fashion-mnist", "--shots", "1,2", "--seeds", "2"]
    words += ["--probe", "ridge,knn", "--layer", "blocks.0", "--cache", cache, "--sweep"]
    table = _json(capsys, words)
    assert list(table["numbers"]) == ["digits", "fashion-mnist"]
    rows = ["model, ridge", "model, knn", "raw pixels, ridge", "raw pixels, knn", "sweep", "settings"]
    assert list(table["numbers"]["digits"]) == rows
    assert len(table["numbers"]["digits"]["sweep"]["model, ridge"]["2"]) == 30
    assert len(list(cache.iterdir())) == 4
    assert _json(capsys, words)["numbers"] == table["numbers"]


def test_fewshot_of_several_models(capsys, trained, tmp_path):
    made = vitlab.create_model("ViT-Ti/7", num_classes=3, image_size=28, hidden=16, layers=1, heads=2, mlp=16)
    vitlab.save_model(made, tmp_path / "other")
    words = ["fewshot", trained, tmp_path / "other", "--data", "digits", "--shots", "1", "--float32"]
    assert list(_json(capsys, words)["numbers"]) == ["upstream", "other", "raw pixels", "settings"]
    assert "twice" in _refused(capsys, ["fewshot", trained, trained, "--data", "digits"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--probe", "svm"], "--probe"),
        (["--layer", "blocks.7"], "blocks.0"),
        (["--layer", "pre_logits"], "never called"),
        (["--shots", "2000"], "--shots"),
        (["--seeds", "0"], "--seeds"),
        (["--l2", "inf"], "l2 is inf"),
        (["--l2", "nan"], "l2"),
        (["--sweep", "--probe", "knn"], "--probe ridge,knn"),
        (["--l2", "3", "--probe", "logistic"], "--l2"),
        (["--float32", "--probe", "knn,logistic"], "--float32"),
        (["--data", "digits"], "twice"),
    ],
)
def test_mistakes_of_fewshot(capsys, trained, words, expected):
    assert expected in _refused(capsys, ["fewshot", trained, "--data", "digits", *words])


@pytest.mark.parametrize(
    ("words", "title", "how", "stored"),
    [
        ([], "", "(least squares, l2 1024)", {"probes": ["ridge"], "layer": None, "l2": 1024.0, "dtype": "float64"}),
        (
            ["--probe", "knn", "--layer", "blocks.0"],
            ", nearest neighbours, layer blocks.0",
            "layer blocks.0, classified by the votes",
            {"probes": ["knn"], "layer": "blocks.0", "l2": None, "dtype": None},
        ),
        (
            ["--probe", "logistic,ridge", "--l2", "7", "--float32"],
            ", logistic regression and least squares",
            "regression (l2 1), and by a linear classifier in closed form (least squares, l2 7, in float32)",
            {"probes": ["logistic", "ridge"], "layer": None, "l2": 7.0, "dtype": "float32"},
        ),
    ],
    ids=["as the paper", "knn of a layer", "two"],
)
def test_fewshot_says_how_its_numbers_were_made(capsys, trained, words, title, how, stored):
    table = _json(capsys, ["fewshot", trained, "--data", "digits", "--shots", "1", "--seeds", "2", *words])
    assert table["title"] == f"Few-shot accuracy on digits (%){title}"
    assert how in table["summary"]
    assert table["notes"][0] == table["summary"]
    assert ("least squares" in table["summary"]) == ("ridge" in stored["probes"])
    assert table["numbers"]["settings"] == {**stored, "seeds": 2}
    file = "-".join(["fewshot", *(stored["probes"] if words else []), *([stored["layer"]] if stored["layer"] else [])])
    assert json.loads((trained / "results" / f"{file}-digits.json").read_text()) == table


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_single_seed_has_no_deviation(capsys, trained, seeds):
    table = _json(capsys, ["fewshot", trained, "--data", "digits", "--shots", "1,2", "--seeds", seeds])
    cells = [cell for row in table["rows"] for cell in row[1:]]
    assert all(("±" in cell) == (seeds > 1) for cell in cells)
    assert ("over 2 random choices" in table["summary"]) == (seeds > 1)
    assert ("one random choice of the training images" in table["summary"]) == (seeds == 1)
    assert any("intervals" in note for note in table["notes"]) == (seeds > 1)


@pytest.mark.parametrize("name", ["settings", "sweep", "raw pixels"])
def test_a_model_does_not_take_the_place_of_an_entry_of_the_results(name):
    assert names_of(["runs/other", f"runs/{name}"]) == ["runs/other", f"runs/{name}"]
    with pytest.raises(UserError, match=f"write ./{name}"):
        names_of(["runs/other", name])
    assert names_of(["other", f"./{name}"]) == ["other", f"./{name}"]
