"""ImageNet's layouts, ReaL's labels, ImageNetV2 and ObjectNet, on fixtures of 1000 and 313 tiny classes."""

import json
import random

import numpy as np
import pytest

from data.layouts import class_folders, put, write
from vitlab.datasets.catalog import open_source
from vitlab.datasets.imagenet import KAGGLE, SYNSETS, read_objectnet_mapping, read_real_labels
from vitlab.errors import UserError

WNIDS = [f"n{1440764 + 3 * number:08d}" for number in range(1000)]
LABELS = np.random.default_rng(0).integers(0, 1000, 40).tolist()


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("imagenet") / "train", WNIDS, 1)


def val(root, flat):
    for number, label in enumerate(LABELS, 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        put(root / "val" / name if flat else root / "val" / WNIDS[label] / name, label)


@pytest.mark.parametrize("layout", ["folders", "synsets", "kaggle"])
def test_validation_is_labelled_alike_in_every_layout(tmp_path, train, layout):
    root = tmp_path / "ILSVRC/Data/CLS-LOC" if layout == "kaggle" else tmp_path
    root.mkdir(parents=True, exist_ok=True)
    (root / "train").symlink_to(train)
    val(root, layout != "folders")
    if layout == "synsets":
        write(tmp_path / SYNSETS, "".join(f"{WNIDS[label]}\n" for label in LABELS))
    if layout == "kaggle":
        rows = [
            f"ILSVRC2012_val_{n:08d},{WNIDS[label]} 1 2 3 4 {WNIDS[0]} 1 2 3 4" for n, label in enumerate(LABELS, 1)
        ]
        random.Random(0).shuffle(rows)
        write(tmp_path / KAGGLE, "ImageId,PredictionString\n" + "\n".join(rows) + "\n")
    for name in ("imagenet", "imagenet-real"):
        source = open_source(f"{name}={tmp_path}", "test")
        assert source.classes == tuple(WNIDS)
        assert source.labels_N.tolist() == LABELS
        assert [source.key(i).rpartition("/")[2] for i in (0, 39)] == [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 40)]
    assert open_source(f"imagenet={tmp_path}", "train").labels_N.tolist() == list(range(1000))


def test_validation_without_train_is_enough_to_measure(tmp_path):
    for number, synset in enumerate(WNIDS, 1):
        put(tmp_path / "val" / synset / f"ILSVRC2012_val_{1001 - number:08d}.JPEG")
    source = open_source(f"imagenet-real={tmp_path}", "test")
    assert source.labels_N.tolist() == list(range(999, -1, -1))
    assert "for testing only" in refused(open_source, f"imagenet-real={tmp_path}", "train")


def test_real_needs_an_order_that_other_forms_do_not_have(tmp_path):
    class_folders(tmp_path / "validation", WNIDS[:3], 1)
    message = refused(open_source, f"imagenet-real={tmp_path}", "test")
    assert "imagenet-real must lie there as train/SYNSET/*.JPEG, and val/" in message


def test_what_does_not_fit_is_named(tmp_path, train):
    (tmp_path / "train").symlink_to(train)
    val(tmp_path, True)
    assert f"val/ is flat; put {SYNSETS} or {KAGGLE} beside it" in refused(open_source, f"imagenet={tmp_path}", "test")
    write(tmp_path / SYNSETS, f"{WNIDS[0]}\n" * 39)
    assert "it labels 39 images, val/ holds 40" in refused(open_source, f"imagenet={tmp_path}", "test")
    write(tmp_path / SYNSETS, f"{WNIDS[0]}\n" * 39 + "n99999999\n")
    assert "no training images for its class 'n99999999'" in refused(open_source, f"imagenet={tmp_path}", "test")
    (tmp_path / SYNSETS).unlink()
    write(tmp_path / KAGGLE, f"ImageId,PredictionString\nILSVRC2012_val_00000001,{WNIDS[0]} 1\n")
    assert "no label for ILSVRC2012_val_00000002.JPEG" in refused(open_source, f"imagenet={tmp_path}", "test")


@pytest.mark.parametrize("folder", ["imagenetv2-matched-frequency-format-val", "test", "."])
def test_imagenet_v2_labels_are_numbers_not_their_order_as_text(tmp_path, folder):
    root = tmp_path / folder
    class_folders(root, [str(number) for number in range(1000)], 1)
    source = open_source(f"imagenet-v2={tmp_path}", "test")
    for index in range(0, 1000, 37):
        assert source.labels_N[index] == int(source.key(index).split("/")[-2])
    assert source.read(37).label == source.labels_N[37]
    assert sorted(source.labels_N.tolist()) == list(range(1000))
    (root / "x1").mkdir()
    assert "folders are numbers from 0 to 999" in refused(open_source, f"imagenet-v2={tmp_path}", "test")


# ------------------------------------------------------------------------------------------------------------ ReaL


def test_real_labels(tmp_path):
    labels = [[number % 1000] if number % 3 else [] for number in range(50_000)]
    labels[7] = [999, 0]
    write(tmp_path / "real.json", json.dumps(labels))
    assert read_real_labels(tmp_path / "real.json") == labels
    for row, wrong in ((5, [1000]), (6, [-1]), (0, [True]), (3, "x"), (4, [1, 1]), (2, [0.5]), (9, None)):
        write(tmp_path / "real.json", json.dumps([*labels[:row], wrong, *labels[row + 1 :]]))
        assert f"entry {row} is " in refused(read_real_labels, tmp_path / "real.json")
    for wrong, message in ((labels[1:], "49,999 entries"), ({}, "no list"), (3, "no list")):
        write(tmp_path / "real.json", json.dumps(wrong))
        assert message in refused(read_real_labels, tmp_path / "real.json")
    write(tmp_path / "real.json", "[" * 100_000)
    assert "not a JSON file" in refused(read_real_labels, tmp_path / "real.json")
    assert "it cannot be read" in refused(read_real_labels, tmp_path / "missing.json")


# ------------------------------------------------------------------------------------------------------- ObjectNet


@pytest.fixture
def objectnet(tmp_path):
    names = [f"Thing {number}" for number in range(313)]
    root = tmp_path / "objectnet-1.0"
    folders = {f"thing_{number}": name for number, name in enumerate(names)}
    write(root / "mappings/folder_to_objectnet_label.json", json.dumps(folders))
    shared = {names[number]: f"class {2 * number}; class {2 * number + 1}" for number in range(113)}
    write(root / "mappings/objectnet_to_imagenet_1k.json", json.dumps(shared))
    write(root / "mappings/imagenet_to_label_2012_v2", "".join(f"class {line}\n" for line in range(1000)))
    ids = {str(label): (label + 1) % 1000 for label in range(1000)}  # label 3 is on line 4
    write(root / "mappings/pytorch_to_imagenet_2012_id.json", json.dumps(ids))
    for folder in folders:
        put(root / "images" / folder / "0.png")
    return tmp_path


def test_objectnet(objectnet):
    source = open_source(f"objectnet={objectnet}", "test")
    assert len(source.classes) == 313
    for index in range(313):
        assert source.classes[source.labels_N[index]] == f"Thing {source.key(index).split('_')[1].split('/')[0]}"
    put(objectnet / "objectnet-1.0/images/unknown/1.png")
    assert "this folder is no class of ObjectNet's mapping" in refused(open_source, f"objectnet={objectnet}", "test")


def test_the_classes_shared_with_imagenet(objectnet):
    root = objectnet / "objectnet-1.0"
    shared = read_objectnet_mapping(root)
    assert len(shared) == 113
    assert shared["Thing 0"] == (999, 0)
    assert shared["Thing 5"] == (9, 10)
    mappings = root / "mappings"
    for name, text, message in (
        ("objectnet_to_imagenet_1k.json", '{"A": "class 1; no such"}', "no class named 'no such'"),
        ("objectnet_to_imagenet_1k.json", '{"A": "class 1", "B": "class 1"}', "is in two classes"),
        ("objectnet_to_imagenet_1k.json", '{"A": 1}', "not a mapping of names to names"),
        ("objectnet_to_imagenet_1k.json", '{"A": "class 1"}', None),
        ("pytorch_to_imagenet_2012_id.json", '{"0": 1000}', "does not map labels to lines"),
        ("pytorch_to_imagenet_2012_id.json", '{"x": 1}', "has 'x' where a whole number"),
    ):
        write(mappings / name, text)
        if message is not None:
            assert message in refused(read_objectnet_mapping, root)
