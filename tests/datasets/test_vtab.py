"""VTAB-1k: label rules on hand-made annotations, and the exact rule of every split."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import layouts
from data.parquet_files import put as put_parquet
from vitlab.data.sources import name_rank
from vitlab.datasets import array_files, synthetic
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.recipes import vtab


@pytest.mark.parametrize(
    ("depths", "label"),
    [
        ([7.9, 12], 0),
        ([12, 8.0], 0),
        ([8.01], 1),
        ([8.5], 1),
        ([8.6], 2),
        ([9.2, 9.9], 3),
        ([9.9], 4),
        ([10, 11], 4),
        ([10.1], 5),
    ],
)
def test_clevr_distance(depths, label):
    assert synthetic.clevr_distance(depths) == label


def test_clevr_count():
    assert [synthetic.clevr_count(objects) for objects in range(3, 11)] == list(range(8))


@pytest.mark.parametrize(
    ("objects", "label"),
    [
        ([("Car", 5.0), ("Van", 30.0)], 0),
        ([("Car", 8.0)], 0),
        ([("Truck", 8.5), ("Pedestrian", 2.0)], 1),
        ([("Van", 20.1), ("Tram", 3.0)], 2),
        ([("Pedestrian", 2.0), ("DontCare", -1000.0), ("Cyclist", 1.0), ("Misc", 4.0)], 3),
        ([], 3),
        ([("Car", -3.0)], 0),
    ],
)
def test_kitti_distance(objects, label):
    assert synthetic.kitti_distance(objects) == label


@pytest.mark.parametrize(("values", "classes"), [(32, 16), (40, 16), (8, 8), (10, 3)])
def test_grouping_is_division_rounded_down(values, classes):
    for label in range(values):
        assert synthetic.grouped(label, values, classes) == int(label // (values / classes))


def test_smallnorb_azimuth():
    assert [array_files.smallnorb_azimuth(stored) for stored in range(0, 36, 2)] == list(range(18))


# -------------------------------------------------------------------------------------------------------- the table

# Official splits of each data set, and what VTAB's public code makes of them: the number where val200 starts, and
# the number of test images.
OFFICIAL = {
    "caltech101": ({"train": 3059, "test": 6084}, ("train", 2753), 6084),
    "cifar100": ({"train": 50000, "test": 10000}, ("train", 45000), 10000),
    "dtd": ({"train": 1880, "validation": 1880, "test": 1880}, ("validation", 0), 1880),
    "flowers102": ({"train": 1020, "validation": 1020, "test": 6149}, ("validation", 0), 6149),
    "pets": ({"train": 3680, "test": 3669}, ("train", 2944), 3669),
    "sun397": ({"train": 76128, "validation": 10875, "test": 21750}, ("validation", 0), 21750),
    "svhn": ({"train": 73257, "test": 26032}, ("train", 65931), 26032),
    "camelyon": ({"train": 262144, "validation": 32768, "test": 32768}, ("validation", 0), 32768),
    "eurosat": ({"train": 27000}, ("train", 16200), 5400),
    "resisc45": ({"train": 31500}, ("train", 18900), 6300),
    "retinopathy": ({"train": 35126, "validation": 10906, "test": 42670}, ("validation", 0), 42670),
    "clevr-count": ({"train": 70000, "validation": 15000}, ("train", 63000), 15000),
    "clevr-dist": ({"train": 70000, "validation": 15000}, ("train", 63000), 15000),
    "dmlab": ({"train": 65550, "validation": 22628, "test": 22735}, ("validation", 0), 22735),
    "dsprites-loc": ({"train": 737280}, ("train", 589824), 73728),
    "dsprites-ori": ({"train": 737280}, ("train", 589824), 73728),
    "kitti-dist": ({"train": 6347, "validation": 423, "test": 711}, ("validation", 0), 711),
    "smallnorb-azim": ({"train": 24300, "test": 24300}, ("test", 0), 12150),
    "smallnorb-elev": ({"train": 24300, "test": 24300}, ("test", 0), 12150),
}


@pytest.mark.parametrize("task", vtab.TASKS, ids=vtab.names())
def test_splits(task):
    counts, (split, start), test = OFFICIAL[task.name]
    (train800,), (val200,) = task.cuts_of("train800"), task.cuts_of("val200")
    assert (train800.split, train800.bounds(counts[train800.split])) == ("train", range(800))
    assert (val200.split, val200.bounds(counts[split])) == (split, range(start, start + 200))
    assert task.cuts_of("train800val200") == (train800, val200)
    (cut,) = task.cuts_of("test")
    bounds = cut.bounds(counts[cut.split])
    assert len(bounds) == test == task.test_images
    assert bounds.stop == counts[cut.split]
    if cut.split == split:
        assert bounds.start >= start + 200  # nothing that is tuned on is tested on


def test_the_table():
    assert [task.group for task in vtab.TASKS] == ["natural"] * 7 + ["specialized"] * 4 + ["structured"] * 8
    assert {task.name for task in vtab.TASKS if not task.flip} == {"dsprites-loc", "dsprites-ori", "smallnorb-azim"}
    unmoved = {"clevr-count", "clevr-dist", "dmlab", "kitti-dist", "dsprites-loc"}
    assert {task.name for task in vtab.TASKS if not task.crop} == unmoved
    classes = [102, 100, 47, 102, 37, 397, 10, 2, 10, 45, 5, 8, 6, 6, 16, 16, 4, 18, 9]
    assert [task.classes for task in vtab.TASKS] == classes
    assert vtab.get("vtab/dtd") is vtab.get("dtd")
    with pytest.raises(UserError, match="did you mean dtd"):
        vtab.get("dt")


def test_the_score_is_the_mean_over_tasks():
    """ViT-H/14 of the paper's Table 9, whose mean is printed as 77.6 (77.63 in Table 2)."""
    row = "95.3 85.5 75.2 99.7 97.2 65.0 88.9 83.3 96.7 91.4 76.6 91.7 63.8 53.1 79.4 63.3 84.5 33.2 51.2"
    accuracies = dict(zip(vtab.names(), map(float, row.split()), strict=True))
    assert round(vtab.score(accuracies), 2) == 77.63
    with pytest.raises(UserError, match="missing: dtd"):
        vtab.score({name: 1.0 for name in accuracies if name != "dtd"})


@given(st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 100), st.integers(0, 500))
def test_cuts_at_the_same_percentage_meet(count, first, second, skip):
    low, high = sorted((first, second))
    whole = [
        position
        for a, b in ((0, low), (low, high), (high, 100))
        for position in _ends(vtab.Cut("x", a, b).bounds(count))
    ]
    assert whole[0] == 0
    assert whole[-1] == count
    assert whole[1] == whole[2]
    assert whole[3] == whole[4]
    assert len(vtab.Cut("x", skip=skip).bounds(count)) == max(0, count - skip)


def _ends(bounds):
    return bounds.start, bounds.stop


def test_too_few_for_a_cut():
    with pytest.raises(
        UserError, match="its train split of 999 images is too small: 200 are needed from number 899 on"
    ):
        vtab.Cut("train", 90, first=200).bounds(999)


# ---------------------------------------------------------------------------------------------------- opened sources


def test_a_table_keeps_its_own_order(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    labels = np.random.default_rng(0).integers(0, 37, 1200).tolist()
    names = [str(label) for label in range(37)]
    put_parquet(tmp_path / "pets/train-0.parquet", labels, names=names)
    put_parquet(tmp_path / "pets/test-0.parquet", [0, 1, 2], names=names)
    parts = {
        part: open_source(f"vtab/pets={tmp_path / 'pets'}", part) for part in ("train", "test", "dev-train", "dev")
    }
    keys = {part: [source.key(i) for i in range(len(source))] for part, source in parts.items()}
    assert keys["dev-train"] == [f"train/{row}" for row in range(800)]
    assert keys["dev"] == [f"train/{row}" for row in range(960, 1160)]
    assert keys["train"] == keys["dev-train"] + keys["dev"]
    assert parts["train"].labels_N.tolist() == labels[:800] + labels[960:1160]
    assert parts["train"].read(900).label == labels[1060]
    assert len(keys["test"]) == 3


def test_folders_are_cut_in_the_order_of_hashes(tmp_path):
    layouts.class_folders(tmp_path, 10, 150)
    opened = {part: open_source(f"vtab/eurosat={tmp_path}", part) for part in ("train", "test", "dev-train", "dev")}
    ranked = sorted((f"c{label:03d}/{image}.jpg" for label in range(10) for image in range(150)), key=name_rank)
    expected = {"dev-train": ranked[:800], "dev": ranked[900:1100], "test": ranked[1200:]}
    expected["train"] = expected["dev-train"] + expected["dev"]
    for part, source in opened.items():
        assert [source.key(index) for index in range(len(source))] == expected[part]
        assert source.labels_N.tolist() == [int(key[1:4]) for key in expected[part]]


def test_an_order_that_is_sorted_is_told(tmp_path, monkeypatch, caplog):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    names = [str(label) for label in range(45)]
    put_parquet(tmp_path / "train.parquet", np.repeat(np.arange(45), 40).tolist(), names=names)
    with caplog.at_level(logging.WARNING):
        open_source(f"vtab/resisc45={tmp_path}", "dev-train")
    assert "it holds 20 of 45 classes; its order may be sorted" in caplog.text
    caplog.clear()
    open_source(f"vtab/resisc45={tmp_path}", "test")
    assert "360 images where the benchmark has 6300" in caplog.text
