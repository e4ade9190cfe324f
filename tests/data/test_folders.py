"""Image folders: layouts, splits, and everything that is refused before any training."""

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.folders import open_folder
from vitlab.data.images import decode
from vitlab.data.sources import fingerprint, split_by_name
from vitlab.errors import UserError


@pytest.fixture
def divided(animals, tmp_path):
    """train/ and val/ with the same two classes."""
    root = tmp_path / "divided"
    shutil.copytree(animals, root / "train")
    shutil.copytree(animals, root / "val")
    return root


def test_train_and_val(divided):
    train, test = open_folder(divided, "train"), open_folder(divided, "test")
    for source in (train, test):
        assert source.classes == ("cat", "dog")
        assert np.bincount(source.labels_N).tolist() == [10, 10]
        assert source.labels_N.dtype == np.int64
        assert len(source) == 20
    sample = test.read(13)
    assert sample.label == 1
    assert sample.name == str(divided / "val/dog/3.png")
    assert decode(sample.data, sample.name).shape == (43, 40, 3)


@pytest.mark.parametrize(("first", "second"), [("val", "test"), ("validation", "test")])
def test_val_comes_before_validation_and_test(divided, first, second):
    (divided / "val").rename(divided / first)
    shutil.copytree(divided / first / "cat", divided / second / "cat")
    assert open_folder(divided, "test").read(0).name.startswith(str(divided / first))


def test_one_folder_is_split_the_same_way_always(animals):
    train, test = open_folder(animals, "train"), open_folder(animals, "test")
    assert np.bincount(train.labels_N).tolist() == [8, 8]
    assert np.bincount(test.labels_N).tolist() == [2, 2]
    assert not set(train.files) & set(test.files)
    moved = animals.rename(animals.parent / "elsewhere")
    again = open_folder(moved, "test")
    assert [name.removeprefix(str(moved)) for name in again.files] == [
        name.removeprefix(str(animals)) for name in test.files
    ]
    assert again.fingerprint == test.fingerprint


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 4)), unique=True, max_size=80))
def test_a_split_is_stratified_and_complete(rows):
    names, labels = [f"{label}/{name}" for name, label in rows], [label for _, label in rows]
    train, test = split_by_name(names, labels, "train"), split_by_name(names, labels, "test")
    assert sorted(train + test) == list(range(len(rows)))
    for label in set(labels):
        count, tests = labels.count(label), sum(labels[index] == label for index in test)
        assert tests == (0 if count == 1 else max(1, round(count / 5)))


def test_a_splits_sides_do_not_depend_on_the_order():
    names, labels = [f"{i}.png" for i in range(50)], [i % 3 for i in range(50)]
    test = {names[i] for i in split_by_name(names, labels, "test")}
    backwards = split_by_name(names[::-1], labels[::-1], "test")
    assert {names[::-1][i] for i in backwards} == test


def test_an_empty_class_folder_shifts_no_label(divided, caplog):
    (divided / "train/bird").mkdir()
    (divided / "val/ant").mkdir()
    for file in (divided / "val/cat").iterdir():
        file.unlink()
    with caplog.at_level(logging.WARNING):
        train, test = open_folder(divided, "train"), open_folder(divided, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert test.labels_N.tolist() == [1] * 10
    assert [record.getMessage() for record in caplog.records] == [
        f"{divided / 'train'}: left out, because there is no image in it: bird",
        f"{divided / 'val'}: left out, because there is no image in it: ant, cat",
    ]


def refused(folder, split="train"):
    with pytest.raises(UserError) as caught:
        open_folder(folder, split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_class_that_training_lacks(divided):
    shutil.copytree(divided / "val/cat", divided / "val/bird")
    assert refused(divided, "test").startswith(f"{divided / 'val'}: no training images for its class 'bird'; ")
    (divided / "train/bird").mkdir()
    assert "no training images for its class 'bird'" in refused(divided, "test")


def test_a_single_class(animals):
    shutil.rmtree(animals / "dog")
    assert refused(animals) == (f"{animals} (train split): there is only the class 'cat'; give two or more classes")


def test_folders_without_classes(tmp_path, animals):
    (tmp_path / "empty").mkdir()
    assert "it holds no class folders" in refused(tmp_path / "empty")
    assert "its images are not in class folders" in refused(animals / "cat")


def test_no_images_at_all(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert "there is no image in its class folders" in refused(tmp_path)


def test_training_without_a_test_side(divided):
    shutil.rmtree(divided / "val")
    assert len(open_folder(divided, "train")) == 20
    assert "there is train/ but no val/ or validation/ or test/" in refused(divided, "test")


def test_too_few_to_split(animals):
    for name in ("cat", "dog"):
        for file in sorted((animals / name).iterdir())[1:]:
            file.unlink()
    assert "2 images are too few to split" in refused(animals, "test")


def test_an_empty_file_is_named_before_training(animals):
    (animals / "dog/5.png").write_bytes(b"")
    for split in ("train", "test"):  # whichever side it is on
        assert refused(animals, split).startswith(f"{animals / 'dog/5.png'}: it is empty (0 bytes)")


def test_skipping_leaves_out_and_tells(divided):
    (divided / "train/dog/5.png").write_bytes(b"")
    (divided / "train/cat/x.png").symlink_to(divided / "missing.png")
    before = open_folder(divided, "test")
    source = open_folder(divided, "train", "skip")
    assert np.bincount(source.labels_N).tolist() == [10, 9]
    assert [line.partition(":")[0] for line in source.skipped] == [
        str(divided / "train/cat/x.png"),
        str(divided / "train/dog/5.png"),
    ]
    assert all("\n" not in line for line in source.skipped)
    assert open_folder(divided, "test", "skip").fingerprint == before.fingerprint
    assert before.skipped == ()
    for file in (divided / "train").rglob("*.*"):
        file.unlink()
        file.touch()
    with pytest.raises(UserError, match="none of its 21 images can be read"):
        open_folder(divided, "train", "skip")


def test_skipping_does_not_move_images_between_the_sides(animals):
    before = {split: set(open_folder(animals, split).files) for split in ("train", "test")}
    (animals / "dog/5.png").write_bytes(b"")
    for split in ("train", "test"):
        after = open_folder(animals, split, "skip")
        assert set(after.files) == before[split] - {str(animals / "dog/5.png")}
        assert len(after.skipped) == 1


def test_keys_are_paths_below_the_folder(divided, animals):
    assert open_folder(animals, "train").key(0) == "cat/0.JPG"
    test = open_folder(divided, "test")
    assert [divided / "val" / test.key(index) for index in range(20)] == [Path(name) for name in test.files]


def test_a_dangling_link_is_named(animals):
    (animals / "dog/x.png").symlink_to(animals / "missing.png")
    assert refused(animals).startswith(f"{animals / 'dog/x.png'}: it cannot be read (No such file")


def test_a_link_loop_is_named(animals):
    (animals / "dog/more").mkdir()
    (animals / "dog/more/again").symlink_to(animals / "dog", target_is_directory=True)
    assert refused(animals).startswith(f"{animals / 'dog/more/again'}: this link leads back")


def test_linked_class_folders_are_followed(animals, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cat", "dog"):
        (linked / name).symlink_to(animals / name, target_is_directory=True)
    assert len(open_folder(linked, "train")) == 16


def test_hidden_and_foreign_files_are_left_out(animals):
    before = open_folder(animals, "train").fingerprint
    (animals / "cat/.hidden.png").write_bytes(b"x")
    (animals / "cat/notes.txt").write_bytes(b"x")
    (animals / ".git/objects").mkdir(parents=True)
    (animals / "README.md").write_bytes(b"x")
    assert open_folder(animals, "train").fingerprint == before


def test_a_folder_without_rights(animals, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", fail)  # rights alone would not stop root
    assert (
        refused(animals) == f"{animals}: this folder cannot be listed (Permission denied); check it and its permissions"
    )


def test_a_file_that_vanishes_is_named(animals):
    source = open_folder(animals, "train")
    Path(source.files[3]).unlink()
    with pytest.raises(UserError, match="it cannot be read") as caught:
        source.read(3)
    assert str(caught.value).startswith(source.files[3])


def test_a_pipe_named_as_an_image_does_not_block(animals):
    os.mkfifo(animals / "cat/pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png: it is empty"):
        open_folder(animals, "train")


@pytest.mark.parametrize("change", ["add", "remove", "rename", "resize", "relabel"])
def test_the_fingerprint_notices(animals, change):
    (animals / "train").mkdir()
    for name in ("cat", "dog"):
        (animals / name).rename(animals / "train" / name)
    before = open_folder(animals, "train").fingerprint
    assert len(before) == 64
    file = animals / "train/dog/1.png"
    match change:
        case "add":
            shutil.copy(file, file.with_name("1b.png"))
        case "remove":
            file.unlink()
        case "rename":
            file.rename(file.with_name("1b.png"))
        case "resize":
            file.write_bytes(file.read_bytes() + b"\0")
        case "relabel":
            file.rename(animals / "train/cat/1.png")
    assert open_folder(animals, "train").fingerprint != before


def test_fingerprints_tell_fields_apart():
    assert fingerprint(["a"], [("x", 1, 10)]) != fingerprint(["a"], [("x", 11, 0)])
    assert fingerprint(["a"], [("x", 1, 0)]) != fingerprint(["a"], [("x1", 1, 0)])
    assert fingerprint(["a"], [("x1", 1, 0)]) != fingerprint(["a"], [("x", 11, 0)])
    assert fingerprint(["a", "b"], []) != fingerprint(["ab"], [])
    assert fingerprint(["a"], [("x", 1, 0), ("y", 1, 0)]) != fingerprint(["a"], [("y", 1, 0), ("x", 1, 0)])
