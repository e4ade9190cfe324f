"""Split manifests: written, checked when they are read, and checked again at every sample."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import layouts
from vitlab.data.folders import open_folder
from vitlab.data.sources import hashed_order, name_rank, select
from vitlab.datasets.catalog import open_source
from vitlab.datasets.manifests import digest, make_manifest, pin, read_manifest, write_manifest
from vitlab.errors import UserError


def refused(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def pinned(animals, tmp_path):
    source = open_folder(animals, "train")
    path = tmp_path / "train.json"
    write_manifest(path, make_manifest(source, "animals", "train"))
    return source, path


def test_written_and_read_back(pinned):
    source, path = pinned
    manifest = read_manifest(path)
    assert (manifest.data, manifest.split) == ("animals", "train")
    assert manifest.samples == tuple(
        (source.key(index), hashlib.sha256(source.read(index).data).hexdigest()) for index in range(len(source))
    )
    assert read_manifest(path, manifest.sha256) == manifest
    again = pin(manifest, [source], "x")
    assert again.labels_N.tolist() == source.labels_N.tolist()
    assert [again.read(index).data for index in range(16)] == [source.read(index).data for index in range(16)]


def test_order_and_choice_are_the_manifests(animals, pinned):
    source, path = pinned
    chosen = select("x", [(source, [5, 3, 11])])
    write_manifest(path, make_manifest(chosen, "animals", "few"))
    again = open_source(str(animals), "train", manifest=path)
    assert [again.key(index) for index in range(len(again))] == [source.key(index) for index in (5, 3, 11)]
    assert again.labels_N.tolist() == source.labels_N[[5, 3, 11]].tolist()
    assert again.name == f"{source.name}, train.json"
    assert again.fingerprint != chosen.fingerprint


def test_a_changed_sample_is_refused(animals, pinned):
    source, path = pinned
    file = animals / source.key(4)
    file.write_bytes(file.read_bytes() + b"\0")
    again = open_source(str(animals), "train", manifest=path)
    assert again.read(3).data
    assert refused(again.read, 4).startswith(f"{file}: its SHA-256 is ")


def test_a_sample_that_is_gone_is_named(animals, pinned):
    source, path = pinned
    (animals / source.key(4)).unlink()
    message = refused(lambda: open_source(str(animals), "train", manifest=path))
    assert f"its manifest names {source.key(4)!r}, which the data set does not hold" in message


def test_what_was_changed_by_hand_is_refused(pinned):
    _, path = pinned
    honest = json.loads(path.read_text())
    swapped = [honest["samples"][1], honest["samples"][0], *honest["samples"][2:]]
    twice = [honest["samples"][0]] * 2
    for change, message in (
        ({"samples": swapped}, "it was changed after it was written"),
        ({"samples": honest["samples"][1:]}, "it was changed after it was written"),
        ({"sha256": "0" * 64}, "it was changed after it was written"),
        ({"samples": twice, "sha256": digest([tuple(each) for each in twice])}, "it names a sample twice"),
        ({"version": 2}, "not a split manifest of version 1"),
        ({"extra": 1}, "not a split manifest of version 1"),
        ({"samples": [["a", "b"]]}, "not a split manifest of version 1"),
        ({"samples": [["a", "0" * 64, "b"]]}, "not a split manifest of version 1"),
    ):
        path.write_text(json.dumps(honest | change))
        assert message in refused(read_manifest, path)
    path.write_text(json.dumps(honest))
    assert "is expected; use the right manifest" in refused(read_manifest, path, "1" * 64)
    assert "it cannot be read" in refused(read_manifest, path.with_name("none.json"))


@settings(max_examples=200)
@given(st.binary(max_size=80) | st.just(b"[" * 100_000))
def test_noise_is_no_manifest(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise.json"
    path.write_bytes(noise)
    assert "not a split manifest" in refused(read_manifest, path)


def test_a_digest_tells_fields_apart():
    rows = [[("a", "b"), ("c", "d")], [("a", "b,c"), ("", "d")], [("c", "d"), ("a", "b")], [("a", "b")], []]
    assert len({digest(each) for each in rows}) == len(rows)


def test_a_task_takes_the_splits_that_lie_beside_it(tmp_path):
    """The paper's own draw of Caltech's images, say, pinned by whoever has it."""
    root = tmp_path / "eurosat"
    layouts.class_folders(root, 10, 150)
    default = open_source(f"vtab/eurosat={root}", "dev-train")
    other = select("x", [(default, list(range(799, -1, -1)))])
    write_manifest(root / "splits/train800.json", make_manifest(other, "vtab/eurosat", "train800"))
    source = open_source(f"vtab/eurosat={root}", "dev-train")
    assert [source.key(i) for i in range(800)] == [default.key(i) for i in range(799, -1, -1)]
    train, dev = open_source(f"vtab/eurosat={root}", "train"), open_source(f"vtab/eurosat={root}", "dev")
    assert [train.key(i) for i in (0, 799, 800, 999)] == [default.key(799), default.key(0), dev.key(0), dev.key(199)]
    write_manifest(root / "splits/test.json", make_manifest(other, "vtab/resisc45", "test"))
    assert "it is the manifest of vtab/resisc45's test" in refused(open_source, f"vtab/eurosat={root}", "test")


def test_a_manifest_of_two_official_splits(tmp_path):
    layouts.flowers(tmp_path, compress=False)
    source = open_source(f"vtab/flowers102={tmp_path}", "test")
    write_manifest(tmp_path / "splits/test.json", make_manifest(source, "flowers", "test"))
    again = open_source(f"flowers={tmp_path}", "test")
    assert again.labels_N.tolist() == source.labels_N.tolist()
    train = open_source(f"flowers={tmp_path}", "train")
    both = select("x", [(train, [3, 4]), (source, [7]), (train, [1])])
    manifest = make_manifest(both, "x", "x")
    mixed = pin(manifest, [source, train], "x")
    assert [mixed.key(i) for i in range(4)] == [both.key(i) for i in range(4)]
    assert mixed.labels_N.tolist() == both.labels_N.tolist()
    assert mixed.read(2).data == source.read(7).data


def test_a_selection_of_nothing_or_of_other_classes(animals):
    source = open_folder(animals, "train")
    assert "no image is left in it" in refused(select, "x", [(source, [])])
    digits = open_source("digits", "test")
    assert "its classes differ" in refused(select, "x", [(source, [0]), (digits, [0])])


def test_the_order_of_hashes_is_a_permutation_without_the_classes(animals):
    source = open_folder(animals, "train")
    order = hashed_order(source)
    assert sorted(order) == list(range(16))
    assert order == sorted(order, key=lambda index: name_rank(source.key(index)))
    assert source.labels_N[order].tolist() != sorted(source.labels_N.tolist())
