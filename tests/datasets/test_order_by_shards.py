"""`data.order=shards` over every way in which a source of tar shards is wrapped: each still knows its shards."""

from collections import Counter

import fsspec
import numpy as np
import pytest

from vitlab.data import loader
from vitlab.data.arrays import array_source
from vitlab.data.folders import open_folder
from vitlab.data.loader import training_batches
from vitlab.data.order import shard_order
from vitlab.data.sources import keyed_split, select
from vitlab.datasets.catalog import open_source
from vitlab.datasets.manifests import make_manifest, write_manifest
from vitlab.dedup.clean_list import without, write_clean_list
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.shards.packing import pack
from vitlab.shards.remote import RemoteFile

TINY = Preprocessing(size=(8, 8))
WINDOW = 3


def tiny_images(split, count):
    """Random pictures of ten classes."""
    pixels = np.random.default_rng(count).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    labels_N = np.arange(count) % 10
    return array_source("noise", split, tuple(map(str, range(10))), labels_N, 48, lambda index: pixels[index])


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """20 training shards and 5 test shards of 100 pictures each; beside them 20 without a split of their own."""
    root = tmp_path_factory.mktemp("shards")
    for folder, split, side, count in (
        ("digits", "train", "train", 2000), ("digits", "test", "test", 500), ("unsplit", "all", "train", 2000)
    ):  # fmt: skip
        pack(tiny_images(side, count), root / folder, split, shard_samples=100, workers=1)
    return root


@pytest.fixture
def epochs(monkeypatch):
    """The indices of two epochs of a source, in the order of training."""
    monkeypatch.setattr(loader, "SHARDS_AT_A_TIME", WINDOW)

    def order(source):
        batches = training_batches(
            source, TINY, Augmentation(crop="none", flip=False),
            batch_size=16, seed=7, steps=-(-2 * len(source) // 16), workers=0, order="shards",
        )  # fmt: skip
        indices = np.concatenate([batch.indices_B.numpy() for batch in batches])
        return indices[: len(source)], indices[len(source) : 2 * len(source)]

    return order


def share(source, fraction=0.5):
    return select("a share", [(source, keyed_split(source, "test", fraction))])


def kept_for_training(source):
    return select("kept", [(source, keyed_split(source, "train", 0.2))])


def excluded(source, folder):
    write_clean_list(folder / "clean.json", source, range(0, len(source), 7), {})
    return without(source, folder / "clean.json")


def pinned(source, folder):
    """Every third sample, last first."""
    chosen = select("chosen", [(source, range(len(source) - 1, 0, -3))])
    write_manifest(folder / "pinned.json", make_manifest(chosen, "digits", "train"))
    return folder / "pinned.json"


def both_halves(packed, folder):
    """The training part of a VTAB task of which only the halves are pinned."""
    whole = f"vtab/svhn={packed / 'digits'}"
    (folder / "pinned" / "splits").mkdir(parents=True)
    for path in (packed / "digits").iterdir():
        (folder / "pinned" / path.name).symlink_to(path)
    for part, name in (("dev-train", "train800"), ("dev", "val200")):
        manifest = make_manifest(open_source(whole, part), "vtab/svhn", name)
        write_manifest(folder / "pinned" / "splits" / f"{name}.json", manifest)
    return open_source(f"vtab/svhn={folder / 'pinned'}", "train")


WRAPPINGS = {
    "a split of shards without one": lambda packed, folder: open_source(str(packed / "unsplit"), "train"),
    "data.share": lambda packed, folder: share(open_source(str(packed / "digits"), "train")),
    "validation": lambda packed, folder: kept_for_training(open_source(str(packed / "digits"), "train")),
    "--exclude": lambda packed, folder: excluded(open_source(str(packed / "digits"), "train"), folder),
    "dev-train": lambda packed, folder: open_source(str(packed / "digits"), "dev-train"),
    "a cut of the catalogue": lambda packed, folder: open_source(f"imagenet-21k={packed / 'digits'}", "train"),
    "two cuts": lambda packed, folder: open_source(f"vtab/svhn={packed / 'digits'}", "train"),
    "a manifest": lambda packed, folder: open_source(
        str(packed / "digits"), "train", manifest=pinned(open_source(str(packed / "digits"), "train"), folder)
    ),
    "two pinned halves": both_halves,
    "two data sets": lambda packed, folder: select(
        "both",
        [
            (source, range(len(source)))
            for source in (open_source(str(packed / "digits"), s) for s in ("train", "test"))
        ],
    ),
    "everything at once": lambda packed, folder: kept_for_training(
        share(excluded(open_source(f"imagenet-21k={packed / 'digits'}", "train"), folder), 0.8)
    ),
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_is_read_shard_by_shard(packed, tmp_path, epochs, wrapping):
    source = WRAPPINGS[wrapping](packed, tmp_path)
    first, second = epochs(source)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(len(source)))
    assert first.tolist() != second.tolist()
    if wrapping == "two pinned halves":  # of the same shards: each half is read by itself
        files = source.shards_N.tolist()
    else:
        files = [source.read(index).name.partition(".tar: ")[0] for index in range(len(source))]
    assert len(set(files)) > WINDOW
    for indices in (first, second):
        visited = [files[index] for index in indices.tolist()]
        last = {file: position for position, file in enumerate(visited)}
        opened = {file: visited.index(file) for file in last}
        for position in range(len(visited)):
            assert sum(opened[file] <= position <= last[file] for file in last) <= WINDOW


def test_the_order_of_plain_shards_stays_as_it_was(packed):
    """Runs that are resumed need the very same order."""
    source = open_source(str(packed / "digits"), "train")
    sizes = [100] * 20
    batches = training_batches(source, TINY, Augmentation(), batch_size=64, seed=7, steps=63, order="shards")
    found = np.concatenate([batch.indices_B.numpy() for batch in batches])
    _, expected = shard_order(np.arange(64 * 63), sizes, 7, loader.SHARDS_AT_A_TIME)
    assert found.tolist() == expected.tolist()


def test_what_lies_in_no_shards_is_refused_in_one_line(packed, animals, epochs):
    folder = open_folder(animals, "train")
    for source in (folder, select("all of it", [(folder, range(len(folder)))])):
        with pytest.raises(UserError, match=r"data\.order=shards needs tar shards.*vitlab data pack") as caught:
            epochs(source)
        assert "\n" not in str(caught.value)
    shards = open_source(str(packed / "digits"), "train")
    files = select("renamed", [(folder, range(4))])
    object.__setattr__(files, "classes", shards.classes)
    with pytest.raises(UserError, match=r"data\.order=shards needs tar shards"):
        epochs(select("some in shards, some not", [(shards, range(40)), (files, range(4))]))


@pytest.mark.parametrize("wrapped", ["plain", "share", "manifest", "two sources"])
def test_shards_behind_urls_are_fetched_once_an_epoch(packed, tmp_path, epochs, monkeypatch, wrapped):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)  # of decoded images: each epoch reads again
    store = fsspec.filesystem("memory")
    for path in (packed / "digits").glob("*.tar"):
        store.pipe_file(f"/digits/{path.name}", path.read_bytes())
    train, test = (open_source("memory://digits/train-*.tar", split) for split in ("train", "test"))
    source = {
        "plain": lambda: train,
        "share": lambda: share(train),
        "manifest": lambda: open_source(
            "memory://digits/train-*.tar", "train", manifest=pinned(train, tmp_path)
        ),
        "two sources": lambda: select("both", [(train, range(len(train))), (test, range(len(test)))]),
    }[wrapped]()  # fmt: skip
    # Room for one window of shards, a block each: what is fetched twice has been dropped too early.
    monkeypatch.setattr(loader, "BLOCK_CACHE_BYTES", WINDOW * 8 * 2**20)
    asked = Counter()
    real = RemoteFile.read_range

    def counted(self, offset, size):
        asked[self.url] += 1
        return real(self, offset, size)

    monkeypatch.setattr(RemoteFile, "read_range", counted)
    epochs(source)
    assert len(asked) == (25 if wrapped == "two sources" else 20)
    # Twice in two epochs; the last batch may begin a third epoch, whose first window is then opened.
    assert max(asked.values()) <= 3
    assert sum(asked.values()) <= 2 * len(asked) + WINDOW
    store.store.clear()
