"""Tar shards behind URLs: the same samples as on disk, an index made once, few requests, one line where it fails."""

import json
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.pictures import encode
from vitlab.data.folders import open_folder
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.shards.indexing import cache_folder, read_ahead
from vitlab.shards.packing import memory_reader, pack, tar_bytes
from vitlab.shards.remote import RemoteFile, find_file, is_url
from vitlab.shards.source import index_path

PICTURE = encode(Image.new("RGB", (3, 2), (9, 8, 7)))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def bucket():
    """An empty store in memory."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    yield store
    store.store.clear()


def shard(*labels):
    return tar_bytes(
        [(f"{i}.{k}", b) for i, label in enumerate(labels) for k, b in (("png", PICTURE), ("cls", b"%d" % label))]
    )


@pytest.fixture
def packed(animals, tmp_path):
    for split in ("train", "test"):
        pack(open_folder(animals, split), tmp_path / "packed", split, shard_samples=5)
    return tmp_path / "packed"


def upload(bucket, folder, *, indices):
    for path in sorted(folder.iterdir()):
        if indices or path.suffix == ".tar":
            bucket.pipe_file(f"/bucket/{path.name}", path.read_bytes())


@pytest.mark.parametrize("pattern", ["train-{00000..00003}.tar", "train-*.tar"])
def test_samples_are_those_on_disk(bucket, packed, pattern):
    upload(bucket, packed, indices=True)
    for part in ("train", "test"):
        local, far = open_source(str(packed), part), open_source(f"memory://bucket/{pattern}", part)
        assert far.classes == local.classes == ("cat", "dog")
        assert far.labels_N.tolist() == local.labels_N.tolist()
        assert [far.key(index) for index in range(len(far))] == [local.key(index) for index in range(len(local))]
        assert all(far.read(index).data == local.read(index).data for index in range(len(local)))
        assert far.fingerprint == local.fingerprint
    assert far.read(0).name.startswith("memory://")


def test_the_index_is_made_once(bucket, packed, monkeypatch):
    upload(bucket, packed, indices=False)
    asked = []
    real = RemoteFile.read_range

    def counted(self, offset, size):
        asked.append((offset, size))
        return real(self, offset, size)

    monkeypatch.setattr(RemoteFile, "read_range", counted)
    first = open_source("memory://bucket/train-*.tar", "train")
    assert len(asked) == 4  # one read for each small shard, not one for each header
    assert first.classes == ("0", "1")
    again = open_source("memory://bucket/train-*.tar", "train")
    assert len(asked) == 4
    assert again.fingerprint == first.fingerprint
    assert len(list(cache_folder().glob("*.index.json"))) == 4
    sample = again.read(0)
    assert asked[4:] == [(first.shards[0].index.offsets[0] - 512, len(sample.data) + 512)]


def test_a_replaced_shard_is_indexed_anew(bucket):
    bucket.pipe_file("/bucket/a.tar", shard(0, 1, 0, 1, 0, 1))
    assert len(open_source("memory://bucket/a.tar", "train")) == 4
    bucket.pipe_file("/bucket/a.tar", shard(1, 1, 0, 0, 0, 1))  # of the same size, at another time
    labels = [open_source("memory://bucket/a.tar", part).labels_N.sum() for part in ("train", "test")]
    assert sum(labels) == 3
    names = {path.name for path in cache_folder().iterdir()}
    assert len(names) == 2


def test_a_shard_that_changes_while_it_is_read(bucket):
    bucket.pipe_file("/bucket/a.tar", shard(0, 1, 0, 1, 0, 1))
    source = open_source("memory://bucket/a.tar", "train")
    bucket.pipe_file("/bucket/a.tar", b"x" * 10_000)
    with pytest.raises(UserError, match=r"a\.tar: 0\.png: the shard changed after it was indexed; start again"):
        source.read(0)
    bucket.rm("/bucket/a.tar")
    with pytest.raises(UserError, match="there is no such file"):
        source.read(0)


def test_a_cache_that_cannot_be_written_costs_a_warning(bucket, monkeypatch, caplog):
    bucket.pipe_file("/bucket/a.tar", shard(0, 1, 0, 1))

    def fail(*arguments):
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr("vitlab.shards.indexing.write_text", fail)
    assert len(open_source("memory://bucket/a.tar", "train")) == 2
    assert "not kept (Read-only file system)" in caplog.text


def test_an_index_beside_the_shard_that_is_damaged(bucket, packed):
    upload(bucket, packed, indices=True)
    bucket.pipe_file("/bucket/train-00000.index.json", b"{}")
    with pytest.raises(UserError, match=r"train-00000\.index\.json: this is not a shard index"):
        open_source("memory://bucket/train-*.tar", "train")
    honest = json.loads(index_path(packed / "train-00000.tar").read_text())
    bucket.pipe_file("/bucket/train-00000.index.json", json.dumps(honest | {"shard_bytes": 10**7}).encode())
    bucket.rm("/bucket/train-00003.index.json")
    assert open_source("memory://bucket/train-{00000,00003}.tar", "train").classes == ("0", "1")  # neither is used


def test_local_files_by_url(packed):
    far = open_source(f"file://{packed}/train-*.tar", "test")
    assert far.fingerprint == open_source(str(packed), "test").fingerprint


def refused(source, part="train"):
    with pytest.raises(UserError) as caught:
        open_source(source, part)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_refused(bucket, monkeypatch):
    bucket.pipe_file("/bucket/train-0.tar", shard(0, 1))
    bucket.pipe_file("/bucket/cut.tar", shard(0, 1, 1)[:1700])
    assert "memory://bucket/train-1.tar: there is no such file" in refused("memory://bucket/train-{0..1}.tar")
    assert "there is no such tar shard" in refused("memory://bucket/x-*.tar")
    assert "there are no test shards; name them val-*.tar" in refused("memory://bucket/train-0.tar", "test")
    assert refused("memory://bucket/cut.tar").startswith("memory://bucket/cut.tar: it is cut short")
    assert "this URL names no tar shards" in refused("memory://bucket/")
    assert "there is no such folder" in refused("ftp://host/train-0.tar") or "no such tar" in refused(
        "ftp://host/a.tar"
    )
    bucket.makedirs("/bucket/folder.tar")
    assert "this is a folder" in refused("memory://bucket/folder.tar")


def test_storage_that_fails_is_one_line(bucket, monkeypatch):
    bucket.pipe_file("/bucket/a.tar", shard(0, 1, 0, 1))
    source = open_source("memory://bucket/a.tar", "train")

    def fail(*arguments, **options):
        raise RuntimeError("503 Slow Down\nmore lines")

    monkeypatch.setattr(type(bucket), "cat_file", fail)
    with pytest.raises(UserError, match=r"^memory://bucket/a\.tar: it cannot be read \(RuntimeError: 503 Slow Down\)"):
        source.read(0)


def test_without_fsspec_or_a_driver_there_is_one_line(monkeypatch):
    assert "s3:// needs a driver: " in refused("s3://bucket/a.tar")
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    assert "pip install 'vitlab[hub]'" in refused("s3://bucket/a.tar")


def test_a_server_that_tells_no_size(bucket, monkeypatch):
    monkeypatch.setattr(type(bucket), "info", lambda self, path: {"name": path, "size": None, "type": "file"})
    with pytest.raises(UserError, match="does not report the file's size"):
        find_file("memory://bucket/a.tar")


def test_skipping_what_is_incomplete(bucket):
    bucket.pipe_file("/bucket/cut.tar", shard(0, 1, 1, 0)[:7500])
    source = open_source("memory://bucket/cut.tar", "train", bad="skip")
    assert any("it is cut short" in line for line in source.skipped)
    assert not cache_folder().exists()  # nobody takes this index for the whole shard's
    assert "it is cut short" in refused("memory://bucket/cut.tar")


def test_urls_and_paths():
    assert all(map(is_url, ("s3://b/a.tar", "https://host/a.tar", "memory://a.tar", "gs://b/{0..1}.tar")))
    assert not any(map(is_url, ("hf://a/b", "/a/b.tar", "c:/a.tar", "ssh://host/a.tar", "simplecache::s3://b/a.tar")))


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache/vitlab/shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("~/.cache/vitlab/shards").expanduser()


@given(
    st.binary(max_size=300),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 320), st.integers(0, 80)), max_size=20),
)
def test_reading_ahead_changes_nothing(content, chunk, reads):
    asked = []

    def read(offset, size):
        asked.append(size)
        return memory_reader(content)(offset, size)

    ahead = read_ahead(read, len(content), chunk)
    for offset, size in reads:
        assert ahead(offset, size) == content[offset : offset + size]
    assert all(size >= chunk for size in asked)


def test_reading_ahead_asks_for_whole_chunks():
    content = bytes(range(256)) * 40
    asked = []

    def read(offset, size):
        asked.append(offset)
        return content[offset : offset + size]

    ahead = read_ahead(read, len(content), 1024)
    for offset in range(0, len(content), 16):
        ahead(offset, 16)
    assert asked == list(range(0, len(content), 1024))
