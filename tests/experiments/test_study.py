"""`vitlab study`: what is tried, what counts, and that a study goes on where it was."""

import json
import statistics

import pytest

from vitlab import files
from vitlab.cli.main import main
from vitlab.datasets.catalog import open_source
from vitlab.experiments import study as grid
from vitlab.training.run_directory import read_metrics

TINY = [
    word
    for change in (
        *("model.options.hidden=16", "model.options.layers=1", "model.options.heads=2", "model.options.mlp=16"),
        *("batch_size=16", "model.image_size=28", "checkpoint_every=0", "data.source=digits"),
    )
    for word in ("--set", change)
]


def _study(capsys, *words):
    capsys.readouterr()
    assert main(["study", *words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_rates_are_tried_on_held_out_images_and_the_best_one_counts(tmp_path, capsys, monkeypatch):
    words = ["demo-upstream", "--steps", "3", "--seeds", "0,1", "--rates", "1e-9,1e-2", "--out", str(tmp_path), *TINY]
    table = _study(capsys, *words)
    folder = tmp_path / "demo-upstream" / "best-rate"
    assert {path.name for path in folder.iterdir()} == {"rate-1e-09", "rate-0.01", "seed-0", "seed-1"}
    numbers = table["numbers"]["best rate"]
    for rate, score in numbers["development_top1"].items():
        logged = [
            line["validation_top1"] for line in read_metrics(folder / f"rate-{rate}") if "validation_top1" in line
        ]
        assert score == max(logged)
        assert not any("test_top1" in line for line in read_metrics(folder / f"rate-{rate}"))
    best = max(numbers["development_top1"], key=numbers["development_top1"].get)
    assert numbers["learning_rate"] == float(best)
    for seed in (0, 1):
        stored = json.loads((folder / f"seed-{seed}" / "results" / "accuracy.json").read_text())
        assert numbers["test_top1"][str(seed)] == stored["numbers"]["top1"]
        text = (folder / f"seed-{seed}" / "recipe.toml").read_text()
        assert "[validation]\nshare = 0.0\n" in text
        assert f"seed = {seed}\n" in text
    shares = [100 * share for share in numbers["test_top1"].values()]
    assert table["rows"][0][2] == f"{statistics.mean(shares):.2f} ± {statistics.stdev(shares):.2f} %"
    assert json.loads((tmp_path / "demo-upstream" / "results" / "study.json").read_text()) == table

    def never(*arguments, **options):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(grid, "run", never)
    assert _study(capsys, *words) == table


def test_the_rate_with_the_best_weights_is_taken(tmp_path, capsys, monkeypatch):
    """Training keeps the weights of its best evaluation, so that one is what a rate is judged by."""
    scores = {0.1: [0.2, 0.3], 0.01: [0.1, 0.6, 0.4], 0.001: [0.5, 0.55]}
    counted = []

    def pretended(recipe, out, **options):
        (out / "results").mkdir(parents=True)
        rate = recipe.optimizer.learning_rate
        if recipe.validation.share:
            lines = [json.dumps({"step": step, "validation_top1": top1}) for step, top1 in enumerate(scores[rate])]
            (out / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        else:
            counted.append((rate, recipe.seed))
        files.write_json(out / "results" / "accuracy.json", {"numbers": {"top1": 0.7}})

    monkeypatch.setattr(grid, "run", pretended)
    words = ["demo-upstream", "--seeds", "3,4", "--rates", "0.1,0.01,0.001", "--out", str(tmp_path)]
    numbers = _study(capsys, *words)["numbers"]["best rate"]
    assert numbers["development_top1"] == {"0.1": 0.3, "0.01": 0.6, "0.001": 0.55}
    assert numbers["learning_rate"] == 0.01
    assert counted == [(0.01, 3), (0.01, 4)]


def test_a_study_that_was_stopped_goes_on(tmp_path, capsys, monkeypatch):
    words = ["demo-upstream", "--steps", "2", "--seeds", "0,1", "--rates", "1e-3", "--out", str(tmp_path), *TINY]
    real, calls = grid.run, []

    def stopping(recipe, out, **options):
        calls.append(out.name)
        if out.name == "seed-1" and calls.count("seed-1") == 1:
            raise KeyboardInterrupt
        return real(recipe, out, **options)

    monkeypatch.setattr(grid, "run", stopping)
    assert main(["study", *words]) == 130
    _study(capsys, *words)
    assert calls == ["rate-0.001", "seed-0", "seed-1", "seed-1"]


def test_another_recipe_in_the_way_is_told(tmp_path, capsys):
    words = ["demo-upstream", "--steps", "1", "--seeds", "0", "--rates", "1e-3", "--out", str(tmp_path), *TINY]
    _study(capsys, *words)
    assert main(["study", *words, "--set", "optimizer.weight_decay=0.5"]) == 2
    assert "weight_decay" in capsys.readouterr().err


def test_rows_of_an_ablation_run_at_a_tiny_size(tmp_path, capsys):
    sizes = ["--set", "model.options.representation=16", "--set", "model.options.patch=14", "--set", "batch_size=4"]
    words = ["--steps", "1", "--seeds", "0", "--out", str(tmp_path), *TINY, *sizes]
    table = _study(capsys, "table8", *words)
    assert [row[0] for row in table["rows"]][::7] == ["none-input", "relative-input"]
    assert table["rows"][0][3] == "0.61382"
    row = _study(capsys, "fig9", "--row", "gap-3e-4", *words)["rows"]
    assert [cells[:2] for cells in row] == [["gap-3e-4", "0.0003"]]


def test_a_recipe_is_a_study_and_a_share_of_the_images_is_enough(tmp_path, capsys):
    words = ["--seeds", "0", "--out", str(tmp_path), "--set", "data.share=0.1", "--set", "epochs=1", *TINY]
    _study(capsys, "demo-upstream", "--rates", "1e-3", *words)
    losses = [line for line in read_metrics(tmp_path / "demo-upstream" / "best-rate" / "seed-0") if "loss" in line]
    images = len(open_source("digits", "train"))
    assert losses[-1]["step"] == round(0.1 * images / 16)


def test_averages_are_over_rows_and_deviations_over_seeds():
    def outcome(name, top1):
        row = grid.StudyRow(name, grid.Sweep(grid.load_recipe("finetune")))
        return grid.Outcome(row, (), 0.01, top1)

    study = grid.Study("s", "about", (), averaged=True)
    table = grid.table(study, [outcome("a", {0: 0.5, 1: 0.7}), outcome("b", {0: 0.1, 1: 0.5})])
    assert table.rows[-1] == ("mean", "", "45.00 ± 21.21 %")


def test_studies_are_listed(capsys):
    rows = _study(capsys)["rows"]
    assert ["table8", 8, 24] in [[row[0], row[2], row[3]] for row in rows]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tabel8"], "table8"),
        (["table4/pets"], "--from"),
        (["table8", "--row", "nothing"], "none-input"),
        (["demo-upstream", "--rates", "a"], "--rates a"),
        (["demo-upstream", "--seeds", "1.5"], "integers from 0"),
        (["demo-upstream", "--seeds", "1,1"], "twice"),
        (["table8"], "--data"),
    ],
)
def test_mistakes_are_one_line(words, expected, capsys, tmp_path):
    assert main(["study", *words, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()
