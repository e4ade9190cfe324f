"""Packing: the same samples as shards, whatever the threads; resized as said; whole or not at all."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from data.pictures import encode
from vitlab.data.arrays import array_source
from vitlab.data.folders import open_folder
from vitlab.data.images import decode
from vitlab.data.loader import training_batches
from vitlab.data.sources import Sample
from vitlab.datasets.catalog import open_source
from vitlab.datasets.manifests import make_manifest
from vitlab.dedup.signatures import sign_block
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.shards.packing import encoded, pack, shorter_side


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("encoding", ["same", "jpeg", "raw"])
def test_threads_change_no_byte(animals, tmp_path, encoding):
    source = open_folder(animals, "train")
    for workers in (1, 4):
        packed = pack(source, tmp_path / str(workers), "train", encoding=encoding, shard_samples=5, workers=workers)
        assert packed.images == len(source) == 16
        assert len(packed.shards) == 4
        assert packed.size == sum(path.stat().st_size for path in packed.shards)
        assert packed.skipped == ()
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


@pytest.mark.parametrize("encoding", ["same", "raw"])
def test_packed_images_are_the_images(animals, tmp_path, encoding):
    for split in ("train", "test"):
        pack(open_folder(animals, split), tmp_path / "packed", split, encoding=encoding)
    for split in ("train", "test"):
        source, packed = open_folder(animals, split), open_source(str(tmp_path / "packed"), split)
        assert packed.classes == source.classes
        assert packed.labels_N.tolist() == source.labels_N.tolist()
        for index in range(len(source)):
            old, new = source.read(index), packed.read(index)
            assert (decode(new.data, "x") == decode(old.data, "x")).all()


def test_resized_jpegs_are_close_to_the_resized_images(animals, tmp_path):
    source = open_folder(animals, "train")
    pack(source, tmp_path / "packed", "train", size=24, encoding="jpeg")
    pack(open_folder(animals, "test"), tmp_path / "packed", "test", size=24, encoding="jpeg")
    packed = open_source(str(tmp_path / "packed"), "train")
    for index in range(len(source)):
        expected = shorter_side(decode(source.read(index).data, "x"), 24).astype(float)
        found = decode(packed.read(index).data, "x")
        assert min(found.shape[:2]) == 24
        assert abs(found - expected).mean() < 4


@pytest.mark.parametrize(("height", "width", "expected"), [(100, 50, (40, 20)), (50, 101, (20, 40)), (20, 9, (20, 9))])
def test_the_shorter_side_is_brought_down_and_never_up(height, width, expected):
    assert shorter_side(np.zeros((height, width, 3), np.uint8), 20).shape == (*expected, 3)


def test_copies_cannot_be_resized():
    with pytest.raises(UserError, match="give jpeg or raw"):
        encoded(Sample(b"", 0, "x"), 20, "same")


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_a_bad_image_leaves_nothing_or_is_counted(animals, tmp_path, encoding):
    source = open_folder(animals, "train")
    with open(source.files[11], "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    with pytest.raises(UserError, match="not a readable JPEG, PNG") as caught:
        pack(source, tmp_path / "packed", "train", encoding=encoding, shard_samples=4)
    assert str(caught.value).startswith(source.files[11])
    assert list((tmp_path / "packed").iterdir()) == []
    packed = pack(source, tmp_path / "packed", "train", encoding=encoding, shard_samples=4, bad_images="skip")
    assert packed.images == 15
    assert [reason.split(":")[0] for reason in packed.skipped] == [source.files[11]]


def test_shards_are_never_written_over(animals, tmp_path):
    pack(open_folder(animals, "train"), tmp_path / "packed", "train")
    before = contents(tmp_path / "packed")
    with pytest.raises(UserError, match=r"already holds train-\*\.tar"):
        pack(open_folder(animals, "train"), tmp_path / "packed", "train")
    assert contents(tmp_path / "packed") == before


def test_progress_reaches_the_end(animals, tmp_path):
    seen = []
    pack(open_folder(animals, "train"), tmp_path / "packed", "train", shard_samples=6, progress=seen.append)
    assert seen == [6, 12, 16]


def test_a_large_jpeg_gets_smaller(photo):
    data = encode(Image.fromarray(photo), "JPEG", quality=95)
    assert len(encoded(Sample(data, 1, "x"), 100, "jpeg").data) < len(data) / 4


def test_shards_can_be_read_shard_by_shard(animals, tmp_path):
    """Shards of one image: 8 of them are mixed at a time, and every epoch holds each image once."""
    for split in ("train", "test"):
        pack(open_folder(animals, split), tmp_path / "packed", split, shard_samples=1)
    source = open_source(str(tmp_path / "packed"), "train")
    assert source.shards_N.tolist() == list(range(16))
    rules = {"batch_size": 8, "seed": 1, "steps": 4, "order": "shards"}
    batches = list(training_batches(source, Preprocessing(size=(8, 8)), Augmentation(), **rules))
    for epoch in range(2):
        seen = torch.cat([batch.indices_B for batch in batches[2 * epoch : 2 * epoch + 2]])
        assert sorted(seen.tolist()) == list(range(16))
    rules["order"] = "global"
    other = next(training_batches(source, Preprocessing(size=(8, 8)), Augmentation(), **rules))
    assert other.indices_B.tolist() != batches[0].indices_B.tolist()
    with pytest.raises(UserError, match="order=shards needs tar shards"):
        training_batches(
            open_folder(animals, "train"),
            Preprocessing(size=(8, 8)),
            Augmentation(),
            batch_size=8,
            seed=1,
            steps=4,
            order="shards",
        )


def test_arrays_are_packed_and_pinned_as_binary_ppm(tmp_path):
    """A source of arrays hands out pixels; files, manifests and signatures see the bytes of a PPM, as ever."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    arrays = array_source("grey", "train/", ("a", "b"), np.arange(6) % 2, 20, lambda index: pixels[index])
    expected = [b"P6\n4 5\n255\n" + image.repeat(3).tobytes() for image in pixels]
    assert all(isinstance(arrays.read(index).data, np.ndarray) for index in range(6))
    for encoding in ("same", "raw"):
        pack(arrays, tmp_path / encoding, "train", encoding=encoding)
        packed = open_source(str(tmp_path / encoding / "train-*.tar"), "train")
        assert [packed.read(index).data for index in range(6)] == expected
        assert packed.key(0) == "train-00000.tar/00000000.ppm"
    digests = [hashlib.sha256(data).hexdigest() for data in expected]
    assert [digest for _, digest in make_manifest(arrays, "grey", "train").samples] == digests
    signatures = sign_block(arrays, range(6), tmp_path / "signatures", workers=1)
    assert (signatures["file"] == sign_block(packed, range(6), tmp_path / "signatures", workers=1)["file"]).all()
