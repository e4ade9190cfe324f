"""What `vitlab data info` shows."""

import json
import shutil

import numpy as np

from vitlab.data.folders import open_folder
from vitlab.datasets.catalog import open_source
from vitlab.datasets.describe import CELL, LABEL_WIDTH, MARGIN, contact_sheet, describe


def test_counts_and_sizes(animals):
    found = describe(open_folder(animals, "train"))
    assert found["images"] == found["checked"] == 16
    assert found["classes"] == {"cat": 8, "dog": 8}
    assert found["sizes"]["largest"][1] == 40
    assert 40 <= found["sizes"]["smallest"][0] <= found["sizes"]["median"][0] <= found["sizes"]["largest"][0] <= 49
    assert found["broken"] == []
    assert json.loads(json.dumps(found))["name"] == f"{animals} (train split)"


def test_a_class_without_test_images_counts_none(animals):
    for name in ("train", "val"):
        (animals / name).mkdir()
    (animals / "dog").rename(animals / "train/dog")
    shutil.copytree(animals / "cat", animals / "val/cat")
    (animals / "cat").rename(animals / "train/cat")
    assert describe(open_folder(animals, "test"))["classes"] == {"cat": 10, "dog": 0}


def test_broken_images_are_listed_not_raised(animals):
    source = open_folder(animals, "train")
    for index in (3, 9):
        with open(source.files[index], "wb") as file:  # noqa: PTH123
            file.write(b"no image")
    found = describe(source)
    assert [line.split(":")[0] for line in found["broken"]] == [source.files[3], source.files[9]]
    assert found["sizes"] is not None


def test_only_so_many_are_decoded():
    found = describe(open_source("digits", "train"), samples=10)
    assert found["checked"] == 10
    assert found["images"] == sum(found["classes"].values()) == 1297
    assert set(found["sizes"].values()) == {(8, 8)}


def test_nothing_readable_has_no_sizes(animals):
    source = open_folder(animals, "test")
    for name in source.files:
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(b"x")
    assert describe(source)["sizes"] is None


def test_a_contact_sheet_shows_classes_in_rows(animals):
    source = open_folder(animals, "train")
    dog = int(np.flatnonzero(source.labels_N == 1)[0])
    with open(source.files[dog], "wb") as file:  # noqa: PTH123
        file.write(b"x")
    sheet = contact_sheet(source, rows=5, columns=3)
    assert sheet.size == (LABEL_WIDTH + 3 * (CELL + MARGIN) + MARGIN, 2 * (CELL + MARGIN) + MARGIN)
    cat = np.asarray(sheet)[MARGIN : MARGIN + CELL, LABEL_WIDTH : LABEL_WIDTH + CELL]
    assert cat.std() > 10
    middle = sheet.getpixel((LABEL_WIDTH + CELL // 2, 2 * MARGIN + CELL + CELL // 2))
    assert middle == (255, 0, 0)  # the cross over the broken dog
