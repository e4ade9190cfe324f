"""The cache of remote blocks: same bytes, few requests, bounded, safe from several threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.block_cache import BlockCache
from vitlab.data.folders import open_folder
from vitlab.data.order import shard_order
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.shards.packing import memory_reader, pack
from vitlab.shards.remote import RemoteFile


@given(
    st.binary(min_size=1, max_size=200),
    st.integers(1, 40),
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 90)), max_size=30),
)
def test_the_bytes_are_the_same(content, block, capacity, reads):
    cache = BlockCache(capacity, block)
    for offset, size in reads:
        expected = content[offset : offset + size]
        assert cache.read("a", len(content), memory_reader(content), offset, size) == expected
        assert len(cache._held) <= max(1, capacity // block)


def test_a_block_is_asked_for_once_while_it_is_held():
    content, asked = bytes(range(100)), []

    def read(offset, size):
        asked.append((offset, size))
        return content[offset : offset + size]

    cache = BlockCache(40, 20)
    for start in (0, 5, 15, 25):
        cache.read("a", 100, read, start, 5)
    assert asked == [(0, 20), (20, 20)]
    cache.read("a", 100, read, 0, 5)
    cache.read("a", 100, read, 90, 30)  # the second block, longest unused, goes for the last one
    cache.read("a", 100, read, 0, 5)
    assert asked == [(0, 20), (20, 20), (80, 20)]
    cache.read("b", 100, read, 0, 1)  # another file's block
    cache.read("a", 100, read, 80, 1)
    assert asked[3:] == [(0, 20), (80, 20)]


def test_threads_that_want_a_block_at_once_share_one_request():
    asked, start = [], threading.Barrier(8)

    def read(offset, size):
        asked.append(offset)
        return b"x" * size

    cache = BlockCache(1000, 100)

    def task(number):
        start.wait(10)
        return cache.read("a", 1000, read, number * 10, 10)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(task, range(8))) == [b"x" * 10] * 8
    assert asked == [0]


def test_a_failure_is_told_and_tried_again():
    answers = [UserError("gone"), b"x" * 10]

    def read(offset, size):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache = BlockCache(100, 10)
    with pytest.raises(UserError, match="gone"):
        cache.read("a", 10, read, 0, 5)
    assert cache.read("a", 10, read, 0, 5) == b"xxxxx"


def test_shard_by_shard_each_shard_is_fetched_once(animals, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for path in pack(open_folder(animals, "train"), tmp_path / "packed", "train", shard_samples=4).shards:
        store.pipe_file(f"/animals/{path.name}", path.read_bytes())
    plain = open_source("memory://animals/train-*.tar", "train")
    source = plain.with_block_cache(BlockCache(2 * 2**24))
    assert np.bincount(source.shards_N).tolist() == [4, 4, 4, 4]
    asked = []
    real = RemoteFile.read_range

    def counted(self, offset, size):
        asked.append(self.url)
        return real(self, offset, size)

    monkeypatch.setattr(RemoteFile, "read_range", counted)
    _, order = shard_order(np.arange(16), [4, 4, 4, 4], 0, 2)
    found = {index: source.read(index) for index in order.tolist()}
    assert len(asked) == 4
    assert all(plain.read(index) == sample for index, sample in found.items())
    store.store.clear()
