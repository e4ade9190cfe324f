"""What the user may call a data set, and what is said where there is none."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.pictures import encode
from vitlab.data.folders import open_folder
from vitlab.data.images import decode
from vitlab.datasets import array_files
from vitlab.datasets.catalog import names, open_source
from vitlab.errors import UserError
from vitlab.shards.opening import expand_braces
from vitlab.shards.packing import tar_bytes


def test_names():
    assert names() == sorted(names())
    assert {"digits", "fashion-mnist", "fashion-mnist-full", "pets", "vtab/dtd"} <= set(names())


def refused(source, split="train"):
    with pytest.raises(UserError) as caught:
        open_source(str(source), split)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unknown_name_gets_the_nearest_and_the_ways():
    message = refused("fashion_mnist")
    assert message.startswith("unknown data set 'fashion_mnist': did you mean fashion-mnist")
    for way in ("`vitlab data` lists them", "train/CLASS/*.jpg", "train-{000..010}.tar", "Parquet", "hf://owner/name"):
        assert way in message


def test_what_is_no_source(tmp_path):
    (tmp_path / "x.csv").write_text("x")
    assert "there is no such folder" in refused(tmp_path / "missing")
    assert "there is no such folder" in refused("~/missing-folder-of-vitlab")
    assert "this is a file, not a data set" in refused(tmp_path / "x.csv")
    assert "there is no such tar shard" in refused(tmp_path / "train-{000..003}.tar")
    assert "there is no such tar shard" in refused(tmp_path / "*.tar")
    assert "commands are never run" in refused("pipe:cat train.tar")
    for suffix in ("tar.gz", "tgz", "tar.zst", "tar.xz"):
        assert "decompress them to .tar first" in refused(tmp_path / f"train.{suffix}")


def test_a_folder(animals):
    assert open_source(str(animals), "test").fingerprint == open_folder(animals, "test").fingerprint


def write_shard(path, *labels):
    picture = encode(Image.new("L", (2, 2)))
    members = [
        (f"{i}.{kind}", body) for i, k in enumerate(labels) for kind, body in (("png", picture), ("cls", b"%d" % k))
    ]
    path.write_bytes(tar_bytes(members))


@pytest.mark.parametrize("test_name", ["val-0.tar", "validation-000.tar", "test_7.tar", "val.tar"])
def test_shards_with_a_test_side(tmp_path, test_name):
    for number in range(3):
        write_shard(tmp_path / f"x-train-{number:03}.tar", 0, 1, 2)
    write_shard(tmp_path / f"x-{test_name}", 1, 1)
    for pattern, count in (("x-train-{000..002}.tar", 9), ("x-train-*.tar", 9), ("x-train-{000,002}.tar", 6)):
        assert len(open_source(str(tmp_path / pattern), "train")) == count
        test = open_source(str(tmp_path / pattern), "test")
        assert test.labels_N.tolist() == [1, 1]
        assert test.classes == ("0", "1", "2")


def test_shards_whose_test_side_has_a_label_of_its_own(tmp_path):
    write_shard(tmp_path / "train.tar", 0, 1)
    write_shard(tmp_path / "val.tar", 0, 5)
    assert "its label 5 is not one of the 2 training classes" in refused(tmp_path / "train.tar", "test")


def test_shards_without_a_test_side(tmp_path):
    write_shard(tmp_path / "train-0.tar", 0, 1)
    assert "there are no test shards; name them val-*.tar beside train-0.tar" in refused(
        tmp_path / "train-0.tar", "test"
    )


@pytest.mark.parametrize("source", ["", "*.tar", "a{0..1}.tar"])
def test_shards_that_are_split_together(tmp_path, source):
    write_shard(tmp_path / "a0.tar", *[0, 1] * 10)
    write_shard(tmp_path / "a1.tar", *[0, 1] * 15)
    train, test = (open_source(str(tmp_path / source), split) for split in ("train", "test"))
    assert np.bincount(train.labels_N).tolist() == [20, 20]
    assert np.bincount(test.labels_N).tolist() == [5, 5]
    places = [tuple(place) for source in (train, test) for place in source.places.tolist()]
    assert len(set(places)) == 50


def test_shards_of_one_class(tmp_path):
    write_shard(tmp_path / "a.tar", 0, 0, 0)
    assert "there is only the class '0'" in refused(tmp_path / "a.tar")


def test_skipping_goes_through_to_shards_and_folders(tmp_path, animals):
    write_shard(tmp_path / "train-0.tar", 0, 1, 1)
    write_shard(tmp_path / "val-0.tar", 1, 0)
    cut = (tmp_path / "train-0.tar").read_bytes()[:5000]
    (tmp_path / "train-0.tar").write_bytes(cut)
    assert f"{tmp_path / 'train-0.tar'}: it is cut short" in refused(tmp_path)
    for source in (str(tmp_path), str(tmp_path / "train-*.tar")):
        opened = open_source(source, "train", bad="skip")
        assert len(opened) == 2
        assert [line.partition(": ")[0] for line in opened.skipped] == [str(tmp_path / "train-0.tar")] * 2
        assert open_source(source, "test", bad="skip").skipped == ()
    (animals / "dog/5.png").write_bytes(b"")
    assert len(open_source(str(animals), "dev", bad="skip").skipped) == 1


def test_braces():
    assert expand_braces("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand_braces("{a,b}{1..2}") == ["a1", "a2", "b1", "b2"]
    assert expand_braces("plain.tar") == ["plain.tar"]
    for bomb in ("{0..99999999}", "{0..999}{0..999}{0..999}"):
        with pytest.raises(UserError, match="it stands for"):
            expand_braces(bomb)


# ---------------------------------------------------------------------------------- Debian's Fashion-MNIST


def write_idx(folder, images, labels, stem="train"):
    folder.mkdir(exist_ok=True)
    for name, values in ((f"{stem}-images-idx3-ubyte.gz", images), (f"{stem}-labels-idx1-ubyte.gz", labels)):
        header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
        (folder / name).write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


@pytest.fixture
def debian(tmp_path):
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (30, 28, 28), np.uint8), np.arange(30, dtype=np.uint8) % 10
    write_idx(tmp_path / "debian", images, labels)
    return tmp_path / "debian", images, labels


def test_idx_files_give_their_pixels(debian):
    folder, images, labels = debian
    source = array_files.open_fashion_mnist("train", folder)
    assert (source.labels_N == labels).all()
    for index in (0, 7, 29):
        sample = source.read(index)
        assert sample.label == labels[index]
        assert (decode(sample.data, sample.name) == images[index][:, :, None]).all()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(array_files.open_fashion_mnist, "__defaults__", (tmp_path / "missing",))
    assert "apt install dataset-fashion-mnist" in refused("fashion-mnist-full")


def test_damaged_idx_files_are_one_line(debian):
    folder, images, labels = debian
    whole = (folder / "train-images-idx3-ubyte.gz").read_bytes()
    raw = gzip.decompress(whole)

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=50)
        | st.integers(0, len(whole) - 1).map(lambda end: whole[:end])
        | st.integers(0, len(raw) - 1).map(lambda end: gzip.compress(raw[:end], 1))
        | st.integers(0, 3).map(lambda at: gzip.compress(raw[:at] + b"\x07" + raw[at + 1 :], 1))
        | st.just(gzip.compress(raw + b"more", 1))
        | st.just(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12, 1))
    )
    def damaged(data):
        (folder / "train-images-idx3-ubyte.gz").write_bytes(data)
        with pytest.raises(UserError) as caught:
            array_files.open_fashion_mnist("train", folder)
        assert "\n" not in str(caught.value)

    damaged()
    write_idx(folder, images, labels[:-1])
    with pytest.raises(UserError, match="labels do not match its images"):
        array_files.open_fashion_mnist("train", folder)
    write_idx(folder, images, labels + 1)
    with pytest.raises(UserError, match="labels do not match its images"):
        array_files.open_fashion_mnist("train", folder)
