"""The catalog's data sets, each read from a small fixture of the layout in which people have it."""

import json
from pathlib import Path

import numpy as np
import pytest

from data import layouts
from vitlab.data.images import decode
from vitlab.datasets import named
from vitlab.datasets.array_files import NORB_STEMS
from vitlab.datasets.catalog import describe_names, names, open_source
from vitlab.datasets.synthetic import DSPRITES_FILE, open_kitti
from vitlab.errors import UserError
from vitlab.recipes import vtab
from vitlab.shards.packing import pack, tar_bytes


def refused(source, part="train"):
    with pytest.raises(UserError) as caught:
        open_source(str(source), part)
    message = str(caught.value)
    assert "\n" not in message
    return message


def pixels(source, index):
    sample = source.read(index)
    return decode(sample.data, sample.name)


def test_every_name_is_described():
    described = describe_names()
    assert sorted(name for name, *_ in described) == names()
    for _, what, classes, needs in described:
        assert what
        assert needs
        assert classes > 1
        assert "\n" not in what + needs
    assert sum(name.startswith("vtab/") for name in names()) == 19
    assert set(named.VTAB_PLACES) == set(vtab.names())


# ------------------------------------------------------------------------------------------ where a name is found


def test_a_folder_by_name_by_variable_and_neither(tmp_path, monkeypatch):
    layouts.pets(tmp_path / "pets", 3, 2)
    assert len(open_source(f"pets={tmp_path / 'pets'}", "train")) == 111
    monkeypatch.setenv("VITLAB_DATA", str(tmp_path))
    assert len(open_source("pets", "train")) == 111
    assert len(open_source("pets", "test")) == 74
    message = refused("dtd")
    assert message.startswith("dtd: no hub version of it is known; give its folder as dtd=PATH, or as $VITLAB_DATA/dtd")
    assert "there is no such folder; vtab/dtd is expected there" in refused(f"vtab/dtd={tmp_path / 'no'}")
    assert "did you mean" in refused("vtab/dttd")


def test_every_set_may_lie_in_class_folders(tmp_path):
    root = tmp_path / "cars"
    layouts.class_folders(root / "train", 196, 2)
    layouts.class_folders(root / "test", 196, 1)
    train, test = open_source(f"cars={root}", "train"), open_source(f"cars={root}", "test")
    assert (len(train), len(test)) == (392, 196)
    assert train.classes == test.classes
    assert train.key(0) == "train/c000/0.jpg"


@pytest.mark.parametrize("form", ["{}-000.tar", "{}/0.tar"])
def test_every_set_may_lie_in_tar_shards(tmp_path, form):
    """Labels that happen to be missing at the top of a part are classes all the same."""
    for split, labels in (("train", range(36)), ("test", (3, 0, 7))):
        members = [
            (f"{i}.{k}", b) for i, n in enumerate(labels) for k, b in (("jpg", layouts.jpeg(n)), ("cls", b"%d" % n))
        ]
        path = tmp_path / form.format(split)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tar_bytes(members))
    train, test = open_source(f"pets={tmp_path}", "train"), open_source(f"pets={tmp_path}", "test")
    assert train.classes == test.classes == tuple(map(str, range(37)))
    assert test.labels_N.tolist() == [3, 0, 7]
    assert test.read(2).data == layouts.jpeg(7)


def test_packed_shards_of_a_set_keep_its_classes(tmp_path):
    layouts.pets(tmp_path / "a", 2, 1)
    before = {part: open_source(f"pets={tmp_path / 'a'}", part) for part in ("train", "test")}
    for part, source in before.items():
        pack(source, tmp_path / "b", part)
    (tmp_path / "b/test-00000.index.json").unlink()  # so that only the training shards tell the names
    for part, source in before.items():
        after = open_source(f"pets={tmp_path / 'b'}", part)
        assert after.classes == source.classes
        assert after.labels_N.tolist() == source.labels_N.tolist()


def test_a_set_with_another_number_of_classes_is_refused(tmp_path):
    layouts.class_folders(tmp_path / "train", 5, 2)
    assert "it has 5 classes, cars has 196; is it the right one?" in refused(f"cars={tmp_path}")


def test_a_missing_split_is_named_with_what_would_do(tmp_path):
    layouts.class_folders(tmp_path / "train", 37, 2)
    message = refused(f"pets={tmp_path}", "test")
    assert "pets has no test split there; put images/*.jpg, annotations/trainval.txt" in message
    assert "test-*.parquet, test-*.tar or test/CLASS/ into it" in message


# ------------------------------------------------------------------------------------------------- development splits


@pytest.mark.parametrize(("name", "per_class", "dev"), [("pets", 20, 2), ("cars", 10, 1)])
def test_development_splits_divide_train(tmp_path, name, per_class, dev):
    classes = named.SETS[name].classes
    layouts.class_folders(tmp_path / "train", classes, per_class)
    layouts.class_folders(tmp_path / "test", classes, 1)
    whole, rest, held = (open_source(f"{name}={tmp_path}", part) for part in ("train", "dev-train", "dev"))
    keys = [{source.key(index) for index in range(len(source))} for source in (whole, rest, held)]
    assert keys[1] | keys[2] == keys[0]
    assert not keys[1] & keys[2]
    assert np.bincount(held.labels_N).tolist() == [dev] * classes
    assert held.read(3).name.endswith(held.key(3))
    assert held.read(3).label == held.labels_N[3]
    assert len({whole.fingerprint, rest.fingerprint, held.fingerprint}) == 3
    assert open_source(f"{name}={tmp_path}", "dev").fingerprint == held.fingerprint


def test_shares_of_the_development_splits():
    shares = {name: named.SETS[name].dev_share for name in ("pets", "flowers", "cifar10", "cifar100", "imagenet")}
    assert shares == {"pets": 0.1, "flowers": 0.1, "cifar10": 0.02, "cifar100": 0.02, "imagenet": 0.01}


def test_any_source_has_development_splits():
    sizes = [len(open_source("digits", part)) for part in ("train", "dev-train", "dev")]
    assert sizes[0] == sizes[1] + sizes[2]
    assert abs(sizes[2] / sizes[0] - 0.1) < 0.01


# --------------------------------------------------------------------------------------------------- the layouts


@pytest.mark.parametrize(("name", "classes", "inner"), [("cifar10", 10, "cifar-10-batches-bin"), ("cifar100", 100, "")])
def test_cifar(tmp_path, name, classes, inner):
    files = layouts.cifar(tmp_path / inner, classes, 30)
    train_files = [files[file] for file in sorted(files) if not file.startswith("test")]
    for part, expected in (("train", train_files), ("test", [files[f] for f in files if f.startswith("test")])):
        source = open_source(f"{name}={tmp_path}", part)
        assert source.classes == tuple(f"k{label}" for label in range(classes))
        assert source.labels_N.tolist() == np.concatenate([labels for labels, _ in expected]).tolist()
        images = np.concatenate([images for _, images in expected])
        for index in (0, len(source) - 1):
            assert (pixels(source, index) == images[index]).all()


def test_damaged_cifar(tmp_path):
    layouts.cifar(tmp_path, 10, 3)
    (tmp_path / "data_batch_3.bin").write_bytes(b"x" * 100)
    assert "data_batch_3.bin: its 100 bytes are not a multiple of the" in refused(f"cifar10={tmp_path}")
    (tmp_path / "data_batch_3.bin").write_bytes(b"\x0a" * 3073)
    assert "image 6 has the label 10; labels are 0 to 9" in refused(f"cifar10={tmp_path}")
    (tmp_path / "data_batch_3.bin").unlink()
    assert "data_batch_3.bin: it cannot be read" in refused(f"cifar10={tmp_path}")


def test_pickled_cifar_is_never_read(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n")
    assert "consists of pickles" in refused(f"cifar10={tmp_path}")


def test_pets(tmp_path):
    layouts.pets(tmp_path, 2, 1)
    train, test = open_source(f"pets={tmp_path}", "train"), open_source(f"pets={tmp_path}", "test")
    assert train.classes[:2] == ("big_breed00", "big_breed01")
    assert test.labels_N.tolist() == list(range(37))
    assert train.key(2) == "images/big_breed01_0.jpg"
    assert (pixels(train, 2) == 1).all()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lonely", "row 75 has 1 of 2 columns"),
        ("a_1 -1 1 1", "row 75 has '-1' where a whole number from 0 is needed"),
        ("../../etc/x_1 1 1 1", "leads out of the data set"),
        ("a_1 99 1 1", "have gaps"),
        ("gone_1 1 1 1", "gone_1.jpg: it cannot be read"),
    ],
)
def test_damaged_lists(tmp_path, line, message):
    layouts.pets(tmp_path, 2, 1)
    with (tmp_path / "annotations/trainval.txt").open("a") as file:
        file.write(line + "\n")
    assert message in refused(f"pets={tmp_path}")


def test_skipping_unreadable_files_of_a_named_set(tmp_path):
    layouts.pets(tmp_path, 2, 1)
    (tmp_path / "images/big_breed03_1.jpg").write_bytes(b"")
    assert "big_breed03_1.jpg: it is empty" in refused(f"pets={tmp_path}")
    source = open_source(f"pets={tmp_path}", "train", bad="skip")
    assert len(source) == 73
    assert np.bincount(source.labels_N)[3] == 1
    assert [line.partition(":")[0] for line in source.skipped] == [str(tmp_path / "images/big_breed03_1.jpg")]
    assert open_source(f"pets={tmp_path}", "dev-train", bad="skip").skipped == source.skipped


@pytest.mark.parametrize("compress", [True, False])
def test_flowers(tmp_path, compress):
    labels, sets = layouts.flowers(tmp_path, compress)
    for part, name in (("train", "trnid"), ("test", "tstid")):
        source = open_source(f"flowers={tmp_path}", part)
        assert source.labels_N.tolist() == [int(labels[image - 1]) - 1 for image in sets[name]]
        assert source.key(5) == f"jpg/image_{sets[name][5]:05d}.jpg"
        assert (pixels(source, 5) == source.labels_N[5] + 1).all()
    assert len(open_source(f"vtab/flowers102={tmp_path}", "test")) == 204


def test_dtd_and_sun397(tmp_path):
    kinds = [f"kind{label:02d}" for label in range(47)]
    lists = {tmp_path / f"dtd/labels/{side}1.txt": (2, "") for side in ("train", "val", "test")}
    layouts.listed(tmp_path / "dtd/images", lists, kinds)
    source = open_source(f"dtd={tmp_path}", "test")
    assert source.classes == tuple(kinds)
    assert source.key(2) == "images/kind01/4.jpg"
    places = [f"a/place{label:03d}" for label in range(397)]
    lists = {tmp_path / f"SUN397/sun397_tfds_{side}.txt": (1, "/") for side in ("tr", "va", "te")}
    layouts.listed(tmp_path / "SUN397", lists, places)
    source = open_source(f"vtab/sun397={tmp_path}", "test")
    assert source.labels_N.tolist() == list(range(397))
    assert source.key(1) == "a/place001/2.jpg"


def test_birds(tmp_path):
    layouts.birds(tmp_path / "CUB_200_2011")
    for part, side in (("train", 1), ("test", 0)):
        source = open_source(f"birds={tmp_path}", part)
        assert source.labels_N.tolist() == list(range(200))
        assert source.key(7) == f"images/008.Bird/{side}.jpg"


def test_caltech(tmp_path):
    names = ["accordion", "BACKGROUND_Google", *(f"z{number:03d}" for number in range(100))]
    layouts.class_folders(tmp_path / "101_ObjectCategories", names, 33)
    train, test = open_source(f"caltech={tmp_path}", "train"), open_source(f"caltech={tmp_path}", "test")
    assert train.classes == tuple(sorted(names))
    assert np.bincount(train.labels_N).tolist() == [30] * 102
    assert np.bincount(test.labels_N).tolist() == [3] * 102
    assert not set(train.files) & set(test.files)
    fewer = tmp_path / "101_ObjectCategories/z000"
    for file in sorted(fewer.iterdir())[:3]:
        file.unlink()
    assert "z000: 30 images are too few" in refused(f"caltech={tmp_path}")


def test_sets_that_come_in_one_piece(tmp_path):
    layouts.class_folders(tmp_path / "uc", 21, 100)
    train, test = (
        open_source(f"uc_merced={tmp_path / 'uc'}", "train"),
        open_source(f"uc_merced={tmp_path / 'uc'}", "test"),
    )
    assert (len(train), len(test)) == (1000, 1100)
    keys = {source.key(index) for source in (train, test) for index in range(len(source))}
    assert len(keys) == 2100
    assert np.bincount(train.labels_N).min() > 25  # mixed: 47.6 of each of the 21 classes are expected
    layouts.class_folders(tmp_path / "few", 8, 20)
    assert "its train split of 160 images is too small: 2,000 are needed" in refused(f"col_hist={tmp_path / 'few'}")


def test_imagenet_21k_has_releases_of_several_sizes(tmp_path):
    layouts.class_folders(tmp_path, 50, 20)
    train, test = (open_source(f"imagenet-21k={tmp_path}", part) for part in ("train", "test"))
    assert (len(train), len(test)) == (990, 10)
    assert not {train.key(i) for i in range(990)} & {test.key(i) for i in range(10)}


def test_retinopathy(tmp_path):
    layouts.retinopathy(tmp_path)
    source = open_source(f"vtab/retinopathy={tmp_path}", "test")
    assert source.labels_N.tolist() == [0, 1, 2, 3, 4] * 3
    assert source.key(4) == "test/4_left_Private.jpeg"
    (tmp_path / "trainLabels.csv").write_text("image,grade\nx,1\n")
    assert "there is no column 'level'; its columns are image, grade" in refused(
        f"vtab/retinopathy={tmp_path}", "dev-train"
    )


def test_clevr(tmp_path):
    scenes = layouts.clevr(tmp_path / "CLEVR_v1.0", {"train": 1000, "val": 40})
    count, distance = (open_source(f"vtab/clevr-{kind}={tmp_path}", "test") for kind in ("count", "dist"))
    assert count.labels_N.tolist() == [len(depths) - 3 for depths in scenes["val"]]
    expected = [np.digitize(min(depths), [0, 8, 8.5, 9, 9.5, 10, 100], right=True) - 1 for depths in scenes["val"]]
    assert distance.labels_N.tolist() == expected
    assert count.key(3) == "images/val/CLEVR_val_000003.png"
    path = tmp_path / "CLEVR_v1.0/scenes/CLEVR_val_scenes.json"
    for text, message in (
        ("{", "not a JSON file"),
        ('{"scenes": [{}]}', "scene 0 is malformed"),
        ("[]", "is malformed"),
    ):
        path.write_text(text)
        assert message in refused(f"vtab/clevr-count={tmp_path}", "test")
    far = {"image_filename": "x.png", "objects": [{"pixel_coords": [0, 0, 1]}] * 11}
    path.write_text(json.dumps({"scenes": [far]}))
    assert "scene 0 is not one of the 8 classes" in refused(f"vtab/clevr-count={tmp_path}", "test")


def test_kitti_is_divided_by_video(tmp_path):
    videos, nearest = layouts.kitti(tmp_path, 20, 4)
    parts = {split: open_kitti(tmp_path, split) for split in ("train", "validation", "test")}
    seen = {}
    for split, source in parts.items():
        for index in range(len(source)):
            image = int(source.key(index)[-10:-4])
            assert seen.setdefault(videos[image], split) == split
            z = nearest[image]
            assert source.labels_N[index] == (3 if z is None else 0 if z <= 8 else 1 if z <= 20 else 2)
    assert [list(seen.values()).count(split) for split in parts] == [16, 2, 2]
    # Drawn as described, by hand: numpy's frozen generator, seed 123, from the sorted names.
    random = np.random.RandomState(123)
    test = random.choice(sorted(set(videos)), 2, replace=False)
    assert {video for video, split in seen.items() if split == "test"} == set(test)
    validation = random.choice(sorted(set(videos) - set(test)), 2, replace=False)
    assert {video for video, split in seen.items() if split == "validation"} == set(validation)


def test_dsprites(tmp_path):
    images, latents = layouts.dsprites(tmp_path, DSPRITES_FILE, 2000)
    for task, column, values in (("loc", 4, 32), ("ori", 3, 40)):
        source = open_source(f"vtab/dsprites-{task}={tmp_path}", "train")
        assert len(source) == 1000
        for index in (0, 999):
            row = int(source.key(index).removeprefix("train/"))
            assert source.labels_N[index] == int(latents[row, column] // (values / 16))
            assert (pixels(source, index) == images[row][:, :, None] * 255).all()
    assert len(open_source(f"vtab/dsprites-loc={tmp_path}", "test")) == 200
    whole = (tmp_path / DSPRITES_FILE).read_bytes()
    (tmp_path / DSPRITES_FILE).write_bytes(whole[:-500])
    assert "it cannot be read" in refused(f"vtab/dsprites-loc={tmp_path}")
    np.savez(tmp_path / DSPRITES_FILE, imgs=np.array([{}]), latents_classes=latents)
    assert "not a plain array" in refused(f"vtab/dsprites-loc={tmp_path}")
    np.savez(tmp_path / DSPRITES_FILE, imgs=images[:5], latents_classes=latents)
    assert "do not match" in refused(f"vtab/dsprites-loc={tmp_path}")


def test_smallnorb(tmp_path):
    files = layouts.smallnorb(tmp_path, NORB_STEMS, 900, side=12)
    for task, column, unit in (("azim", 2, 2), ("elev", 1, 1)):
        train, test = (open_source(f"vtab/smallnorb-{task}={tmp_path}", part) for part in ("train", "test"))
        assert (len(train), len(test)) == (1000, 450)
        for source in (train, test):
            for index in (0, len(source) - 1):
                split, row = source.key(index).split("/")
                images, info = files[split]
                assert source.labels_N[index] == info[int(row), column] // unit
                assert (pixels(source, index) == images[int(row), 0][:, :, None]).all()
    path = tmp_path / f"{NORB_STEMS['test']}-info.mat"
    whole = path.read_bytes()
    for damaged, message in (
        (whole[:-1], "its size does not fit"),
        (b"x" * 40, "not one of SmallNORB's files"),
        (b"", "not one of"),
    ):
        path.write_bytes(damaged)
        assert message in refused(f"vtab/smallnorb-azim={tmp_path}", "test")


def test_svhn(tmp_path):
    files = layouts.svhn(tmp_path, {"train": 1200, "test": 30})
    test = open_source(f"vtab/svhn={tmp_path}", "test")
    images, labels = files["test"]
    assert test.labels_N.tolist() == [label % 10 for label in labels.tolist()]
    assert (pixels(test, 9) == images[9]).all()


def test_the_documentation_has_every_name():
    page = Path(__file__).parents[2] / "docs/datasets.md"
    rows = {line.split("`")[1]: line for line in page.read_text().splitlines() if line.startswith("| `")}
    assert set(rows) == set(named.names())
    for name, _, classes, needs in map(named.describe, named.names()):
        assert f"| {classes:,} |" in rows[name]
        if "hf://" in needs:
            assert needs.partition("hf://")[2] in rows[name]
        else:
            assert rows[name].endswith("|  |")
