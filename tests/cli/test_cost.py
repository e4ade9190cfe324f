"""`vitlab cost` and `vitlab bench` print what the arithmetic and the clock say; mistakes are one line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vitlab.cli.main import main
from vitlab.datasets.catalog import open_source
from vitlab.recipes import cost, hardware, memory, zoo
from vitlab.recipes.transfer import TABLE_9
from vitlab.report import plots, published
from vitlab.report.plots import own_exaflops
from vitlab.report.published import TABLE_2, TABLE_6
from vitlab.weights import load_model


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


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fashion-mnist", {"parameters": "145.29 k", "FLOPs per image, forward": "5.05 M"}),
        ("ViT-B/16", {"parameters": "86.57 M", "FLOPs per image, forward": "35.13 G"}),
        ("ViT-G/14", {"parameters": "1,844.44 M", "FLOPs per image, forward": "967.50 G"}),
    ],
)
def test_units_suit_the_size(capsys, name, expected):
    rows = dict(_json(capsys, ["cost", name])["rows"])
    assert {key: rows[key] for key in expected} == expected
    held = next(value for key, value in rows.items() if key.startswith("weights, gradients"))
    exact = 16 * cost.parameters(zoo.get(name)) if name != "fashion-mnist" else 16 * 145_290
    number, unit = held.split()
    assert float(number) * {"MB": 1e6, "GB": 1e9}[unit] == pytest.approx(exact, rel=0.005)


def test_a_device_of_another_size(capsys):
    numbers = _json(capsys, ["cost", "B/16", "--hardware", "RTX-4090", "--memory", "12GB"])["numbers"]
    assert numbers["largest_batch"] == memory.largest_batch(zoo.get("B/16"), 12 * 10**9, precision="bfloat16")
    assert main(["cost", "B/16", "--memory", "twelve"]) == 2
    assert "memory 'twelve': write a number with GB or GiB" in capsys.readouterr().err


def test_a_recipe_brings_its_own_numbers(capsys):
    numbers = _json(capsys, ["cost", "demo-upstream"])["numbers"]
    assert (numbers["images"], numbers["batch"]) == (6000, 96)
    assert numbers["epochs"] == 13
    shape = dict(image_size=28, hidden=128, layers=4, heads=4, mlp=256, num_classes=10)
    assert numbers["parameters"] == cost.parameters(zoo.configure("ViT-Ti/7", shape))


def test_a_recipe_of_steps_needs_no_images(capsys):
    numbers = _json(capsys, ["cost", "finetune", "--model", "ViT-S/16"])["numbers"]
    assert numbers["exaflops"] == pytest.approx(3 * cost.flops(zoo.get("ViT-S/16")) * 300 * 32 / 1e18)
    assert (numbers["steps"], numbers["epochs"], numbers["images"]) == (300, None, None)
    assert main(["cost", "finetune"]) == 0
    assert "training: 300 steps of 32 images " in capsys.readouterr().out


def test_steps_are_epochs_where_the_data_is_known(capsys):
    table = _json(capsys, ["cost", "table4/cifar10"])
    assert (table["numbers"]["epochs"], table["numbers"]["images"]) == (102.4, 50_000)
    assert table["rows"][-3][0] == "training: 10,000 steps of 512 images, 102.4 epochs of 50,000 images"
    flops = cost.flops(zoo.configure("ViT-B/16", {"image_size": 384, "num_classes": 10}))
    assert table["numbers"]["exaflops"] == pytest.approx(3 * flops * 10_000 * 512 / 1e18)
    table = _json(capsys, ["cost", "table4/cifar10", "--epochs", "3"])
    assert table["numbers"]["exaflops"] == pytest.approx(3 * flops * 3 * 50_000 / 1e18)
    assert table["rows"][-3][0] == "training: 3 epochs of 50,000 images"


def test_a_run_costs_what_its_own_model_has(capsys, trained):
    table = _json(capsys, ["cost", str(trained)])
    weights = load_model(trained)
    numbers = table["numbers"]
    assert numbers["parameters"] == sum(weight.numel() for weight in weights.parameters())
    assert numbers["exaflops"] == pytest.approx(cost.exaflops(weights.config, 6, 32))
    assert (numbers["classes"], numbers["images"], numbers["batch"]) == (10, 6000, 32)
    assert len(table["notes"]) == 1


def test_classes_and_images_of_a_folder_are_counted(capsys, photos, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(f'steps = 10\nbatch_size = 4\n[data]\nsource = "{photos}"\nshare = 0.5\n')
    numbers = _json(capsys, ["cost", str(mine)])["numbers"]
    source = open_source(str(photos), "train")
    assert (numbers["classes"], numbers["images"]) == (len(source.classes), round(0.5 * len(source)))
    assert numbers["epochs"] == pytest.approx(40 / numbers["images"])


def test_classes_that_are_not_known_are_told(capsys):
    told = "Classes: 1,000, the model's default; the number of classes of the data is not known."
    for name in ("table3/vit-l16-jft-7ep", "finetune", "ViT-L/16"):
        assert told in _json(capsys, ["cost", name])["notes"]
    assert told not in _json(capsys, ["cost", "table4/imagenet"])["notes"]


@pytest.mark.parametrize(("accumulation", "together"), [(1, 100), (8, 13), (1000, 1), ("auto", 100)])
def test_memory_is_of_the_images_that_go_through_together(capsys, tmp_path, accumulation, together):
    mine = tmp_path / "mine.toml"
    mine.write_text(f"steps = 10\nbatch_size = 100\n[scale]\naccumulation = {json.dumps(accumulation)}\n")
    table = _json(capsys, ["cost", str(mine)])
    assert table["numbers"]["batch"] == together
    assert table["numbers"]["exaflops"] == pytest.approx(cost.exaflops(zoo.get("ViT-B/16"), 10, 100))
    needed = memory.training_memory(zoo.get("ViT-B/16"), together, precision="bfloat16")
    assert table["numbers"]["training_memory"] == needed.peak
    assert any("microbatch" in note for note in table["notes"]) == (accumulation != 1)
    assert _json(capsys, ["cost", str(mine), "--batch", "50"])["numbers"]["batch"] == 50


def test_one_image_is_not_images(capsys):
    assert main(["cost", "B/16"]) == 0
    assert "activations of 1 image, bfloat16" in capsys.readouterr().out


def test_the_whole_zoo_at_another_size_with_a_price(capsys):
    table = _json(capsys, ["cost", "--all", "--image-size", "448", "--price", "2"])
    assert "at 448 pixels" in table["title"]
    found = table["numbers"]["ViT-B/16"]
    assert found["flops"] == cost.flops(zoo.configure("ViT-B/16", {"image_size": 448}))
    assert found["price"] == pytest.approx(2 * found["device_hours"])
    assert table["columns"][-1] == "price"
    assert table["rows"][0][-1] == f"{table['numbers'][table['rows'][0][0]]['price']:,.2f}"


def test_the_whole_zoo(capsys, tmp_path):
    table = _json(capsys, ["cost", "--all", "--plot", str(tmp_path / "scaling.png")])
    assert [row[0] for row in table["rows"]] == zoo.names()
    assert table["numbers"]["ViT-H/14"]["exaflops"] * 2 == pytest.approx(4262, rel=0.02)
    with Image.open(tmp_path / "scaling.png") as picture:
        assert min(picture.size) > 900


def test_the_plot_as_svg_has_every_model(tmp_path):
    plots.save_figure(plots.figure_5(), tmp_path / "scaling.svg")
    text = (tmp_path / "scaling.svg").read_text()
    assert text.startswith("<?xml")
    assert len(TABLE_6) == 18
    axes = plots.figure_5().axes
    assert [sum(len(points.get_offsets()) for points in part.collections) for part in axes] == [18, 18]
    places = axes[0].collections[0].get_offsets().data.tolist()
    first = TABLE_6[0]
    assert places[0] == pytest.approx([own_exaflops(first), (80.73 + 98.61 + 90.49 + 93.40 + 99.27) / 5])


def test_the_papers_tables_agree_with_each_other():
    table_9 = (  # ViT-H/14 and ViT-L/16 from JFT, ViT-L/16 from ImageNet-21k: the columns of Table 2
        (95.3, 85.5, 75.2, 99.7, 97.2, 65.0, 88.9, 83.3, 96.7, 91.4, 76.6,
         91.7, 63.8, 53.1, 79.4, 63.3, 84.5, 33.2, 51.2),
        (95.4, 81.9, 74.3, 99.7, 96.7, 63.5, 87.4, 83.6, 96.5, 89.7, 77.1,
         86.4, 63.1, 49.7, 74.5, 60.5, 82.2, 36.2, 51.1),
        TABLE_9,
    )  # fmt: skip
    for column, scores in zip(TABLE_2, table_9, strict=False):
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
        (["cost", "finetune", "--epochs", "3"], "--images"),
        (["cost", "--all", "--image-size", "384"], "multiples of 224"),
        (["cost", "--all", "--image-size", "22400"], "16,384"),
        (["cost", "--all", "--batch", "64"], "--batch"),
        (["cost", "--all", "--model", "ViT-B/16"], "--model"),
        (["cost", "ViT-B/16", "--model", "ViT-L/16"], "--model"),
        (["cost", "B/16", "--price", "inf"], "--price"),
        (["cost", "B/16", "--price", "nan"], "--price"),
        (["cost", "B/16", "--price", "-1"], "--price"),
        (["cost", "B/16", "--utilisation", "nan"], "(0, 1]"),
        (["cost", "B/16", "--utilisation", "1e-320"], "(0, 1]"),
        (["cost", "B/16", "--epochs", "nan"], "--epochs"),
        (["cost", "B/16", "--epochs", "inf"], "--epochs"),
        (["cost", "B/16", "--image-size", "1000000"], "16,384"),
        (["cost", "B/16-99984"], "16,384"),
        (["cost", "B/16", "--batch", "99999999999999999999"], "--batch"),
        (["cost", "B/16", "--images", "9" * 400], "--images"),
        (["cost", "fashion-mnis"], "did you mean fashion-mnist?"),
        (["cost", str(Path(__file__).parent)], "recipe.toml"),
        (["cost", "B/16", "--plot", "plot.pdf"], ".svg"),
        (["bench", "inference", "--models", "ViT-Q/16"], "vitlab models"),
        (["bench", "inference", "--models", "ViT-B/16", "--sizes", "17"], "17"),
        (["bench", "inference", "--batches", "1,x"], "--batches"),
        (["bench", "inference", "--batches", "1,²"], "--batches"),
        (["bench", "inference", "--sizes", "²"], "--sizes"),
        (["bench", "inference", "--models", "ViT-Ti/16", "--batches", "1", "--sizes", "٣٢"], "--sizes"),
        (["bench", "inference", "--sizes", "9" * 5000], "--sizes"),
        (["bench", "inference", "--sizes", "0"], "--sizes"),
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
    predicted = [found["predicted_largest"] for found in table["numbers"]["measured"]]
    assert [row[-1] for row in table["rows"]] == [None if most is None else f"{most:,}" for most in predicted]
    assert plot.read_text().startswith("<?xml")
