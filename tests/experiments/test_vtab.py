"""All 19 tasks end to end, in small; the protocol's laws on one task."""

import json
import shutil

import pytest
import torch

import vitlab
from vitlab.cli.main import main
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation.features import features_of
from vitlab.evaluation.least_squares import factorise, solve
from vitlab.experiments import vtab as running
from vitlab.experiments.vtab_folder import Settings, finished, open_folder
from vitlab.recipes import vtab
from vitlab.runtime import choose

from .vtab_folders import fewer_training_images, write_all

QUICK = ["--steps", "20", "--set", "batch_size=8", "--set", "model.image_size=16", "--set", "checkpoint_every=0"]
QUICK += ["--set", "schedule.warmup_steps=2", "--set", "scale.accumulation=1"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vtab")
    write_all(root)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny"
    made = vitlab.create_model("ViT-Ti/8", num_classes=3, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    vitlab.save_model(made, path)
    return path


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    fewer_training_images(monkeypatch)


def _run(capsys, words):
    capsys.readouterr()
    assert main(["vtab", *map(str, words), "--device", "cpu", "--json"]) == 0
    return json.loads(capsys.readouterr().out)["numbers"]


def _results(out):
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}


@pytest.mark.long
def test_a_whole_run_of_19_tasks(capsys, tmp_path, folders, model):
    out = tmp_path / "run"
    numbers = _run(capsys, [model, "--data", folders, "--out", out, *QUICK])
    assert list(numbers["tasks"]) == vtab.names()
    assert numbers["mean"] == pytest.approx(sum(numbers["tasks"].values()) / 19)
    natural = [numbers["tasks"][task.name] for task in vtab.TASKS if task.group == "natural"]
    assert numbers["groups"]["natural"] == pytest.approx(sum(natural) / 7)
    assert set(numbers["groups"]) == {"natural", "specialized", "structured"}
    found = _results(out)
    for task in vtab.TASKS:
        result = found[task.name]
        test = open_source(running.source_of(task, folders), "test")
        assert result["images"] == len(test)
        assert result["test"] == test.fingerprint
        assert (result["final_steps"], result["tuning_steps"]) == (20, 0)
        recipe = (out / task.name / "final/recipe.toml").read_text()
        assert f"flip = {str(task.flip).lower()}" in recipe
        assert 'kind = "sgd"' in recipe
    stored = json.loads((out / "results/vtab.json").read_text())
    assert stored["headline"][0]["value"] == f"{100 * numbers['mean']:.2f}"


def test_the_rate_is_chosen_on_200_and_the_budget_is_recorded(capsys, tmp_path, folders, model):
    out = tmp_path / "run"
    words = [model, "--data", folders, "--out", out, "--tasks", "svhn", *QUICK, "--learning-rates", "1e-9,0.05"]
    numbers = _run(capsys, words)
    assert numbers["mean"] is None
    assert numbers["tuning"] == {"trials": 2, "updates": 40}
    result = _results(out)["svhn"]
    best = max(result["trials"], key=lambda trial: trial["validation"])
    assert result["chosen"] == best["value"]
    assert [trial["value"] for trial in result["trials"]] == [1e-9, 0.05]
    sources = {part: open_source(f"vtab/svhn={folders / 'svhn'}", part) for part in ("dev-train", "dev", "train")}
    assert [len(source) for source in sources.values()] == [40, 10, 50]
    tuned = json.loads((out / "svhn/tune-0.05/environment.json").read_text())["data"]
    final = json.loads((out / "svhn/final/environment.json").read_text())["data"]
    assert (tuned, final) == (sources["dev-train"].fingerprint, sources["train"].fingerprint)


def test_it_goes_on_task_by_task(capsys, tmp_path, folders, model):
    out = tmp_path / "run"
    words = [model, "--data", folders, "--out", out, *QUICK]
    first = _run(capsys, [*words, "--tasks", "svhn"])
    before = (out / "svhn/result.json").stat().st_mtime_ns
    both = _run(capsys, [*words, "--tasks", "eurosat,svhn"])
    assert list(both["tasks"]) == ["svhn", "eurosat"]
    assert both["tasks"]["svhn"] == first["tasks"]["svhn"]
    assert (out / "svhn/result.json").stat().st_mtime_ns == before
    linear = [model, "--data", folders, "--out", out, "--linear", "--set", "model.image_size=16"]
    assert main(["vtab", *map(str, linear)]) == 2
    assert "another linear" in capsys.readouterr().err


LINEAR = ["--linear", "--tasks", "camelyon", "--set", "model.image_size=16"]


def _refused(capsys, words):
    capsys.readouterr()
    assert main(["vtab", *map(str, words), "--device", "cpu"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()[-1]


def _tiny(path, seed):
    torch.manual_seed(seed)
    made = vitlab.create_model("ViT-Ti/8", num_classes=3, image_size=16, hidden=16, layers=1, heads=2, mlp=16)
    vitlab.save_model(made, path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_finished_task_is_not_passed_off_as_that_of_other_images(capsys, tmp_path, folders, model, part):
    out, other = tmp_path / "run", tmp_path / "other"
    first = _run(capsys, [model, "--data", folders, "--out", out, *LINEAR])
    shutil.copytree(folders / "camelyon", other / "camelyon")
    same = _run(capsys, [model, "--data", other, "--out", out, *LINEAR])
    assert same == first  # the same images may lie anywhere
    for image in (other / "camelyon" / part).rglob("*.jpg"):
        image.write_bytes(image.read_bytes() + b"more")
    before = (out / "camelyon/result.json").read_bytes()
    message = _refused(capsys, [model, "--data", other, "--out", out, *LINEAR])
    assert f"its {part} images are not those" in message
    assert "--out" in message
    assert "/nowhere" in _refused(capsys, [model, "--data", "/nowhere", "--out", out, *LINEAR])
    assert (out / "camelyon/result.json").read_bytes() == before


def test_tuned_tasks_are_compared_with_the_data_too(capsys, tmp_path, folders, model):
    words = [model, "--out", tmp_path / "run", "--tasks", "svhn", *QUICK]
    _run(capsys, [*words, "--data", folders])
    assert "/nowhere" in _refused(capsys, [*words, "--data", "/nowhere"])


def test_a_folder_belongs_to_weights_not_to_their_path(capsys, tmp_path, folders):
    path, moved, out = tmp_path / "model", tmp_path / "moved", tmp_path / "run"
    _tiny(path, 0)
    words = ["--data", folders, "--out", out, *LINEAR]
    first = _run(capsys, [path, *words])
    path.rename(moved)
    assert _run(capsys, [moved, *words]) == first
    _tiny(path, 1)
    message = _refused(capsys, [path, *words])
    assert "other weights" in message
    assert "--out" in message
    settings = json.loads((out / "vtab.json").read_text())
    del settings["weights"]
    (out / "vtab.json").write_text(json.dumps(settings))
    assert "does not record its weights" in _refused(capsys, [moved, *words])


@pytest.mark.parametrize(("changes", "expected"), [([], "VTAB's recipes"), (["model.image_size=20"], "--set")])
def test_images_that_the_patches_do_not_divide(capsys, tmp_path, folders, changes, expected):
    made = vitlab.create_model("ViT-Ti/7", num_classes=3, image_size=28, hidden=16, layers=1, heads=2, mlp=16)
    vitlab.save_model(made, tmp_path / "model")
    words = [tmp_path / "model", "--data", folders, "--out", tmp_path / "run", "--linear", "--tasks", "camelyon"]
    message = _refused(capsys, [*words, *(word for change in changes for word in ("--set", change))])
    assert f"{20 if changes else 384} is " in message
    assert expected in message
    assert message.endswith("--set model.image_size=28")
    assert not (tmp_path / "run").exists()


def test_a_task_that_was_trained_but_not_noted_is_not_trained_again(capsys, tmp_path, folders, model):
    out = tmp_path / "run"
    words = [model, "--data", folders, "--out", out, *QUICK, "--tasks", "svhn"]
    first = _run(capsys, words)
    weights = out / "svhn/final/metrics.jsonl"
    lines = weights.read_text()
    (out / "svhn/result.json").unlink()
    assert _run(capsys, words)["tasks"] == first["tasks"]
    assert weights.read_text() == lines


def test_linear_chooses_the_penalty_on_200(capsys, tmp_path, folders, model, monkeypatch):
    out, fitted = tmp_path / "run", []

    def noted(features, labels, classes):
        fitted.append(len(labels))
        return factorise(features, labels, classes)

    monkeypatch.setattr(running, "factorise", noted)
    numbers = _run(
        capsys, [model, "--data", folders, "--out", out, "--linear", "--tasks", "svhn", "--set", "model.image_size=16"]
    )
    result = _results(out)["svhn"]
    assert numbers["tuning"] == {"trials": 30, "updates": 0}
    assert result["final_steps"] == 0
    highest = max(trial["validation"] for trial in result["trials"])
    chosen = next(trial for trial in result["trials"] if trial["value"] == result["chosen"])
    assert chosen["validation"] == highest
    assert fitted == [40, 50]  # they stand for 800, and for all 1,000
    loaded = vitlab.load_model(model, image_size=16)
    train, test = (
        features_of(loaded, open_source(f"vtab/svhn={folders / 'svhn'}", part), loaded.preprocessing, choose("cpu"))
        for part in ("train", "test")
    )
    predicted = solve(*train, 10, l2=result["chosen"]).predict(test[0])
    assert (result["right"], result["images"]) == ((predicted == test[1]).sum(), len(test[1]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tasks", "svnh"], "svhn"),
        (["--learning-rates", "0.1,x"], "--learning-rates"),
        (["--learning-rates", "0"], "--learning-rates"),
        (["--tasks", "svhn", "--data", "/nowhere"], "/nowhere"),
        (["--tasks", "svhn", "--set", "optimizer.lr=1"], "optimizer"),
        (["--tasks", "svhn", "--set", "optimizer.learning_rate=1"], "--learning-rates"),
        (["--tasks", "svhn", "--set", "init_from=elsewhere"], "the weights are MODEL"),
        (["--tasks", "svhn", "--linear", "--steps", "5"], "steps has no effect with --linear"),
        (["--tasks", "svhn", "--linear", "--set", "optimizer.weight_decay=1"], "has no effect with --linear"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, model, words, expected):
    assert main(["vtab", str(model), "--out", str(tmp_path / "run"), "--device", "cpu", *words]) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="in the way"):
        open_folder(tmp_path, Settings("model"))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("text", ["{", "[]", '{"task": "svhn"}', '{"trials": [{"x": 1}]}'])
def test_a_damaged_result_is_one_line(tmp_path, text):
    (tmp_path / "svhn").mkdir()
    (tmp_path / "svhn/result.json").write_text(text)
    with pytest.raises(UserError, match="remove it"):
        finished(tmp_path, vtab.get("svhn"))
    assert finished(tmp_path, vtab.get("dtd")) is None
