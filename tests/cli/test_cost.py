"""`vitlab cost` and `vitlab bench` print what the arithmetic and the clock say; mistakes are one line."""

import json

import pytest
from PIL import Image

from vitlab.cli.main import main
from vitlab.recipes import cost, hardware, memory, zoo
from vitlab.report import published, scaling
from vitlab.report.published import TABLE_2, TABLE_6, TABLE_9
from vitlab.report.scaling import own_exaflops


def _json(capsys, words):
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_costs_what_the_arithmetic_says(capsys):
    numbers = _json(capsys, ["cost", "L/16", "--price", "2", "--batch", "64", "--utilisation", "0.5"])["numbers"]
    config = zoo.get("ViT-L/16")
    assert numbers["exaflops"] == pytest.approx(783, rel=0.002)
    assert numbers["training_memory"] == memory.training_memory(config, 64, precision="bfloat16").peak
    assert numbers["tpu_v3_core_days"] == pytest.approx(cost.tpu_v3_core_days(numbers["exaflops"], 0.5))
    assert numbers["price"] == pytest.approx(2 * numbers["h100_hours"])
    assert numbers["largest_batch"] == memory.largest_batch(config, 80 * 10**9, precision="bfloat16")


def test_other_hardware_precision_and_size(capsys):
    words = ["cost", "B/16", "--hardware", "a100", "--precision", "float32", "--image-size", "384"]
    numbers = _json(capsys, [*words, "--epochs", "300", "--images", "1281167"])["numbers"]
    assert numbers["flops"] == cost.flops(zoo.configure("B/16", {"image_size": 384}))
    peak = hardware.find("A100").peak("float32")
    assert numbers["device_hours"] == pytest.approx(hardware.device_hours(numbers["exaflops"], peak, 0.4))


def test_a_device_of_another_size(capsys):
    numbers = _json(capsys, ["cost", "B/16", "--hardware", "RTX-4090", "--memory", "12GB"])["numbers"]
    assert numbers["largest_batch"] == memory.largest_batch(zoo.get("B/16"), 12 * 10**9, precision="bfloat16")
    assert main(["cost", "B/16", "--memory", "twelve"]) == 2
    assert "memory 'twelve': write a number with GB or GiB" in capsys.readouterr().err


def test_a_recipe_brings_its_own_numbers(capsys):
    numbers = _json(capsys, ["cost", "demo-upstream"])["numbers"]
    assert (numbers["images"], numbers["batch"]) == (6000, 96)
    assert numbers["epochs"] == 13
    config = zoo.configure("ViT-Ti/7", dict(image_size=28, hidden=128, layers=4, heads=4, mlp=256))
    assert numbers["parameters"] == cost.parameters(config)


def test_a_recipe_of_steps_needs_no_images(capsys):
    numbers = _json(capsys, ["cost", "finetune", "--model", "ViT-S/16"])["numbers"]
    assert numbers["exaflops"] == pytest.approx(3 * cost.flops(zoo.get("ViT-S/16")) * 300 * 32 / 1e18)


def test_the_whole_zoo(capsys, tmp_path):
    table = _json(capsys, ["cost", "--all", "--plot", str(tmp_path / "scaling.png")])
    assert [row[0] for row in table["rows"]] == zoo.names()
    assert table["numbers"]["ViT-H/14"]["exaflops"] * 2 == pytest.approx(4262, rel=0.02)
    with Image.open(tmp_path / "scaling.png") as picture:
        assert min(picture.size) > 900


def test_the_plot_as_svg_has_every_model(tmp_path):
    scaling.save_figure(scaling.figure_5(), tmp_path / "scaling.svg")
    text = (tmp_path / "scaling.svg").read_text()
    assert text.startswith("<?xml")
    assert len(TABLE_6) == 18
    axes = scaling.figure_5().axes
    assert [sum(len(points.get_offsets()) for points in part.collections) for part in axes] == [18, 18]
    places = axes[0].collections[0].get_offsets().data.tolist()
    first = TABLE_6[0]
    assert places[0] == pytest.approx([own_exaflops(first), (80.73 + 98.61 + 90.49 + 93.40 + 99.27) / 5])


def test_the_papers_tables_agree_with_each_other():
    for column, scores in zip(TABLE_2, TABLE_9.values(), strict=False):
        assert sum(scores) / 19 == pytest.approx(float(column.accuracies["VTAB"].split()[0]), abs=0.06)
    assert {row.family for row in TABLE_6} == {"ViT", "ResNet", "hybrid"}
    assert set(published.CATALOG.values()) == set(published.TRANSFER)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cost"], "--all"),
        (["cost", "ViT-B/16", "--all"], "--all"),
        (["cost", "ViT-Q/16"], "vitlab models"),
        (["cost", "B/16", "--hardware", "H10"], "H100"),
        (["cost", "B/16", "--utilisation", "1.5"], "(0, 1]"),
        (["cost", "B/16", "--epochs", "0"], "--epochs"),
        (["cost", "B/16", "--image-size", "225"], "224 and 240"),
        (["cost", "B/16", "--precision", "float32", "--hardware", "TPUv3-core"], "bfloat16"),
        (["cost", "scratch"], "--images"),
        (["cost", "B/16", "--plot", "plot.pdf"], ".svg"),
        (["bench", "inference", "--models", "ViT-Q/16"], "vitlab models"),
        (["bench", "inference", "--models", "ViT-B/16", "--sizes", "17"], "17"),
        (["bench", "inference", "--batches", "1,x"], "--batches"),
        (["bench", "inference", "--plot", "x.pdf"], ".svg"),
    ],
)
def test_mistakes_are_one_line(capsys, words, expected):
    capsys.readouterr()
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert expected in printed.err


def test_bench_measures_and_leaves_out_sizes_that_do_not_fit(capsys, tmp_path):
    words = ["bench", "inference", "--models", "ViT-Ti/16,BiT-R50x1", "--sizes", "32,40", "--batches", "1,2"]
    plot = tmp_path / "speed.svg"
    table = _json(capsys, [*words, "--repetitions", "1", "--device", "cpu", "--plot", str(plot)])
    assert [row[:2] for row in table["rows"]] == [["ViT-Ti/16", 32], ["BiT-R50x1", 32], ["BiT-R50x1", 40]]
    for found in table["numbers"]["measured"]:
        assert set(found["images_per_second"]) == {"1", "2"}
        assert found["largest_batch"] == 2
        assert found["smallest_refused"] is None
    assert plot.read_text().startswith("<?xml")
