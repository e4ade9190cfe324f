"""Comparison of runs with the paper's rows, which are marked, and the training cost of every run."""

import json
import statistics

import pytest

import vitlab
from report.small_runs import write_table
from vitlab.errors import UserError
from vitlab.recipes import cost
from vitlab.recipes.schema import DataConfig, ModelSpec, OptimizerConfig, Recipe, to_toml
from vitlab.report.comparison import accuracies_of, comparison, grouped
from vitlab.report.content import read_folder
from vitlab.report.cost_table import cost_table
from vitlab.report.page import write_report
from vitlab.report.published import TABLE_2, TABLE_6

TINY = dict(image_size=28, hidden=16, layers=1, heads=2, mlp=16)


def _run(path, seed=0, top1=0.9, name="tiny", data="cifar10", steps=50, speed=400.0, rate=1e-3):
    recipe = Recipe(
        name=name, epochs=2.5, batch_size=64, seed=seed, data=DataConfig(source=data),
        optimizer=OptimizerConfig(learning_rate=rate),
        model=ModelSpec(name="ViT-Ti/7", options=TINY),
    )  # fmt: skip
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(to_toml(recipe))
    lines = [{"step": step, "loss": 1.0, "images_per_second": speed, "memory_bytes": 10**9} for step in (10, steps)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_table(
        path / "results/accuracy.json", f"Accuracy on {data} (test split)", ["class", "top-1"], [["all", "x"]],
        numbers={"top1": top1, "images": 100},
    )  # fmt: skip
    vitlab.save_model(vitlab.create_model("ViT-Ti/7", num_classes=10, **TINY), path / "model")
    return path


def _runs(*paths):
    return [read_folder(path).own for path in paths]


def test_seeds_become_a_mean_and_a_deviation(tmp_path):
    runs = [_run(tmp_path / f"seed-{seed}", seed, top1) for seed, top1 in enumerate((0.90, 0.92, 0.97))]
    other = _run(tmp_path / "other", 0, 0.5, name="other", data="/somewhere/photos")
    groups = grouped(_runs(*runs, other))
    assert [group.name for group in groups] == ["tiny, 3 seeds", "other"]
    table_2, table_6 = comparison(_runs(*runs, other))
    rows = {row[0]: row for row in table_2.rows}
    deviation = statistics.stdev((90, 92, 97))
    assert rows["CIFAR-10"][1:3] == (f"{279 / 3:.2f} ± {deviation:.2f}", None)
    assert rows["photos"][1:3] == (None, "50.00")
    assert rows["CIFAR-10"][3] == TABLE_2[0].accuracies["CIFAR-10"] == "99.50 ± 0.06"
    assert all(column.startswith("paper: ") for column in table_2.columns[3:])
    assert len(table_2.columns) == 3 + len(TABLE_2)
    own = [row for row in table_6.rows if not str(row[0]).startswith("paper: ")]
    assert len(own) == 2
    assert len(table_6.rows) == 2 + len(TABLE_6)


def test_the_papers_rows_are_the_papers(tmp_path):
    _, table = comparison(_runs(_run(tmp_path / "a", 0), _run(tmp_path / "b", 1, data="digits", name="b")))
    places = {name: number for number, name in enumerate(table.columns)}
    row = next(row for row in table.rows if row[0] == "paper: ViT-H/14")
    assert row[places["CIFAR-10"]] == "99.50"
    assert row[places["ImageNet"]] == "88.08"
    assert row[places["digits"]] is None
    assert row[places["exaFLOPs"]] == "4,262"


def test_compute_is_that_of_the_images_seen(tmp_path):
    (run,) = _runs(_run(tmp_path / "a", steps=50))
    config = vitlab.load_model(tmp_path / "a").config
    table = cost_table(run)
    assert table.numbers["exaflops"] == pytest.approx(3 * cost.flops(config) * 50 * 64 / 1e18)
    rows = dict(table.rows)
    assert rows["images seen"] == "3,200"
    assert rows["throughput (images/s, median)"] == "400.0"
    assert rows["training time at this throughput (hours)"] == f"{3200 / 400 / 3600:.3g}"
    assert rows["executed FLOPs per second"] == f"{3 * cost.executed_flops(config) * 400:.4g}"
    assert cost.executed_flops(config) < cost.flops(config)
    assert "model FLOPs utilisation (MFU, median)" not in rows
    assert not any("energy" in name for name in rows)


def test_energy_is_summed_over_the_lines_that_tell_it(tmp_path):
    path = _run(tmp_path / "a", steps=50)
    lines = [{"step": step, "loss": 1.0, "images_per_second": 9.0, "energy_joules": 1.8e6} for step in (10, 20)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert dict(cost_table(_runs(path)[0]).rows)["measured energy (kWh)"] == "1"
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 30, "loss": 1.0, "images_per_second": 9.0}) + "\n")
    assert dict(cost_table(_runs(path)[0]).rows)["measured energy (kWh) (2 of 3 lines)"] == "1"


def test_one_run_alone_is_not_compared(tmp_path):
    assert comparison(_runs(_run(tmp_path / "a"))) == ()


def test_a_page_of_several_runs_begins_with_the_tables(tmp_path):
    paths = [_run(tmp_path / "a", 0), _run(tmp_path / "b", 1)]
    html = write_report(paths, tmp_path / "page.html").read_text()
    assert html.index("form of the paper") < html.index("Training cost")
    assert "paper: ViT-L/16" in html
    assert str(tmp_path) not in html
    alone = write_report([paths[0]], tmp_path / "one.html").read_text()
    assert "form of the paper" not in alone
    assert "Training cost" in alone


def test_the_mean_of_vtab_is_an_accuracy_too(tmp_path):
    path = _run(tmp_path / "a")
    write_table(path / "results/vtab.json", "VTAB-1k of a, linear", ["task"], [["x"]], numbers={"mean": 0.5})
    assert accuracies_of(_runs(path)[0]) == {"CIFAR-10": 90.0, "VTAB": 50.0}


def _vtab(path, tested, mean=0.5):
    write_table(path / "results/vtab.json", f"VTAB-1k of {tested}, linear", ["task"], [["x"]], numbers={"mean": mean})
    return path


def test_vtab_in_a_folder_of_its_own_belongs_to_the_run_that_was_tested(tmp_path):
    runs = [_run(tmp_path / "a"), _run(tmp_path / "b", name="b")]
    table, _ = comparison(_runs(*runs, _vtab(tmp_path / "vt", "b")))
    assert table.columns[1:3] == ("a", "b")
    row = next(row for row in table.rows if row[0] == "VTAB")
    assert row[1:4] == (None, "50.00", TABLE_2[0].accuracies["VTAB"])


def test_vtab_of_another_model_is_a_column_of_its_own(tmp_path):
    (own, vtab) = grouped(_runs(_run(tmp_path / "a"), _vtab(tmp_path / "vt", "elsewhere")))
    assert (own.name, vtab.name, vtab.model) == ("a", "vt", "elsewhere")
    assert vtab.accuracies == {"VTAB": (50.0,)}


def test_the_data_set_is_what_the_result_says_not_where_it_lay(tmp_path):
    path = _run(tmp_path / "a")
    for name, dataset, top1 in (("one", "imagenet", 0.7), ("two", "imagenet-real", 0.8), ("three", "photos", 0.6)):
        numbers = {"dataset": dataset, "top1": top1}
        title = f"Accuracy on ReaL ({tmp_path}/inet (validation split))"
        write_table(path / f"results/{name}.json", title, ["class"], [["all"]], numbers=numbers)
    found = accuracies_of(_runs(path)[0])
    assert found == pytest.approx({"CIFAR-10": 90, "ImageNet": 70, "ReaL": 80, "photos": 60})


def test_a_run_that_is_given_twice_counts_once(tmp_path):
    path = _run(tmp_path / "a")
    (group,) = grouped(_runs(path, tmp_path / "a" / "." / ".." / "a"))
    assert (group.name, group.runs) == ("a", 1)
    assert comparison(_runs(path, path)) == ()


def test_a_cell_of_some_of_the_runs_says_so(tmp_path):
    runs = [_run(tmp_path / f"seed-{seed}", seed, 0.9) for seed in range(3)]
    (runs[0] / "results/accuracy.json").rename(tmp_path / "away.json")
    numbers = {"dataset": "digits", "top1": 0.5}
    write_table(runs[0] / "results/more.json", "Accuracy on digits", ["class"], [["all"]], numbers=numbers)
    table, _ = comparison(_runs(*runs))
    rows = {row[0]: row[1] for row in table.rows}
    assert table.columns[1] == "tiny, 3 seeds"
    assert rows["CIFAR-10"] == "90.00 ± 0.00 (2 of 3)"
    assert rows["digits"] == "50.00 (1 of 3)"


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [_run(tmp_path / folder / "run", rate=rate) for folder, rate in (("x", 0.003), ("y", 0.01))]
    (one, other) = grouped(_runs(*paths))
    assert one.name == "run (learning_rate 0.003)"
    assert other.name == "run (learning_rate 0.01)"
    seeds = [_run(tmp_path / f"{rate}-{seed}", seed, rate=rate) for rate in (0.003, 0.01) for seed in (0, 1)]
    names = [group.name for group in grouped(_runs(*seeds))]
    assert names == ["tiny, 2 seeds (learning_rate 0.003)", "tiny, 2 seeds (learning_rate 0.01)"]
    table, _ = comparison(_runs(*seeds))
    assert set(table.numbers) == set(names)


def test_what_differs_says_nothing_of_the_machine(tmp_path):
    paths = [_run(tmp_path / folder / "run", data=str(tmp_path / folder / "photos")) for folder in ("x", "y")]
    names = [group.name for group in grouped(_runs(*paths))]
    assert len(set(names)) == 2
    assert not any(str(tmp_path) in name for name in names)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model": "vgg", "config": {}}', '{"model": "vit", "config": {"patch": 0}}']
)
def test_a_damaged_model_is_named(tmp_path, text):
    path = _run(tmp_path / "a")
    (path / "model/config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json") as error:
        read_folder(path)
    assert "\n" not in str(error.value)
