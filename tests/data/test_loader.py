"""Laws of the loader: batches are functions of the step, whatever the threads and wherever the stream is entered."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.pictures import augment, encode
from vitlab.data import assembly, loader
from vitlab.data.augmentation.device_augment import vary_batch
from vitlab.data.folders import open_folder
from vitlab.data.images import decode
from vitlab.data.loader import evaluation_batches, normalise, training_batches
from vitlab.data.order import SampleGenerators, sample_order
from vitlab.data.resize import prepare
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

COLUMNS = ("images_BHWC", "labels_B", "indices_B", "epochs_B", "positions_B")
SMALL = Preprocessing(size=(24, 32))
RULES = Augmentation(crop="inception", randaugment_layers=2, randaugment_magnitude=10, erase=0.5)


@pytest.fixture
def source(animals):
    return open_folder(animals, "train")


def stream(source, *, first_step=0, steps=9, workers=0, seed=3, batch_size=6):
    return training_batches(
        source, SMALL, RULES, batch_size=batch_size, seed=seed, first_step=first_step, steps=steps, workers=workers
    )


def same(first, second):
    assert first.step == second.step
    for name in COLUMNS:
        assert torch.equal(getattr(first, name), getattr(second, name))


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("vitlab-data")]


def test_batches_are_what_the_parts_make(source):
    """16 images in batches of 6: the third batch spans two epochs."""
    for step, batch in enumerate(stream(source)):
        epochs, indices = sample_order(np.arange(6 * step, 6 * step + 6), 16, 3)
        assert batch.step == step
        assert batch.epochs_B.tolist() == epochs.tolist()
        assert batch.indices_B.tolist() == indices.tolist()
        for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist(), strict=True)):
            sample = source.read(index)
            image = augment(decode(sample.data, sample.name), RULES, SMALL, SampleGenerators(3).of(epoch, index))
            assert (batch.images_BHWC[row].numpy() == image).all()
            assert batch.labels_B[row] == sample.label
        assert batch.images_BHWC.dtype == torch.uint8
        assert batch.labels_B.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 1, 4, None])
@pytest.mark.parametrize("first_step", [0, 1, 5])
def test_threads_and_entry_change_nothing(source, workers, first_step, monkeypatch):
    monkeypatch.setattr(assembly, "SMALLEST_CHUNK", 1)
    expected = list(stream(source))[first_step:]
    found = list(stream(source, first_step=first_step, workers=workers))
    assert len(found) == len(expected) == 9 - first_step
    for first, second in zip(found, expected, strict=True):
        same(first, second)
    assert threads() == []


def test_a_stream_of_many_steps_is_the_same_wherever_it_is_entered(source):
    """The order is computed for several steps at once, from wherever it starts."""
    steps = 2 * loader.STEPS_AT_A_TIME + 3
    whole = list(stream(source, steps=steps, batch_size=2))
    assert [batch.step for batch in whole] == list(range(steps))
    later = list(stream(source, first_step=5, steps=steps, batch_size=2))
    assert len(later) == steps - 5
    for expected, found in zip(whole[5:], later, strict=True):
        same(expected, found)


def test_the_cache_changes_nothing(source, monkeypatch):
    expected = list(stream(source))
    for room in (0, 20_000):
        monkeypatch.setattr(loader, "CACHE_BYTES", room)
        for first, second in zip(stream(source), expected, strict=True):
            same(first, second)


def test_the_cache_is_bounded_and_used(source, monkeypatch):
    reads = []
    counted = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, index: reads.append(index) or counted(self, index))
    list(stream(source, steps=8))
    assert sorted(reads) == list(range(16))
    reads.clear()
    monkeypatch.setattr(loader, "CACHE_BYTES", 40 * 48 * 3)  # one image
    list(stream(source, steps=8))
    assert len(reads) >= 3 * 15


def test_every_epoch_sees_every_image_once(source):
    indices = torch.cat([batch.indices_B for batch in stream(source, steps=8)])
    epochs = torch.cat([batch.epochs_B for batch in stream(source, steps=8)])
    for epoch in range(3):
        assert sorted(indices[epochs == epoch].tolist()) == list(range(16))


def test_seeds_and_epochs_differ(source):
    first, other = next(stream(source, batch_size=16)), next(stream(source, batch_size=16, seed=4))
    assert not torch.equal(first.indices_B, other.indices_B)
    batches = list(stream(source, batch_size=16, steps=2))
    by_index = [batch.images_BHWC[batch.indices_B.argsort()] for batch in batches]
    assert not torch.equal(*by_index)


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 16, 100])
def test_evaluation_sees_every_image_once_in_order(source, workers, batch_size):
    batches = list(evaluation_batches(source, SMALL, batch_size=batch_size, workers=workers))
    assert torch.cat([batch.indices_B for batch in batches]).tolist() == list(range(16))
    assert torch.cat([batch.labels_B for batch in batches]).tolist() == source.labels_N.tolist()
    assert {len(batch.labels_B) for batch in batches[:-1]} <= {batch_size}
    images = torch.cat([batch.images_BHWC for batch in batches])
    for index in range(16):
        sample = source.read(index)
        assert (images[index].numpy() == prepare(decode(sample.data, sample.name), SMALL)).all()


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_broken_image_surfaces_in_the_consumer(source, workers):
    batches = list(stream(source, steps=3))
    broken = source.files[int(batches[2].indices_B[1])]
    with open(broken, "wb") as file:  # noqa: PTH123
        file.write(b"no image")
    found = stream(source, steps=3, workers=workers)
    with pytest.raises(UserError, match="not a readable JPEG, PNG") as caught:
        list(found)
    assert str(caught.value).startswith(broken)
    assert threads() == []


def test_closing_stops_the_threads(source):
    batches = stream(source, steps=10**9, workers=3)
    next(batches)
    assert threads()
    batches.close()
    assert threads() == []


def test_batches_ahead_are_bounded(source, monkeypatch):
    read = set()
    counted = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, index: read.add(index) or counted(self, index))
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    batches = evaluation_batches(source, SMALL, batch_size=2, workers=4)
    next(batches)
    batches.close()
    assert len(read) <= 2 * (1 + assembly.BATCHES_AHEAD)


def test_a_source_smaller_than_a_batch_is_refused_at_once(source):
    with pytest.raises(UserError, match=r"its 16 images are fewer than a batch of 17; .*--set batch_size=16$"):
        stream(source, batch_size=17)


def test_the_bundled_images_are_trained_on_as_they_are():
    source = open_source("fashion-mnist", "train")
    rules = Augmentation(crop="none", flip=False)
    size = Preprocessing(size=(28, 28))
    batch = next(training_batches(source, size, rules, batch_size=64, seed=0, steps=1, workers=0))
    sample = source.read(int(batch.indices_B[63]))
    assert (batch.images_BHWC[63].numpy() == decode(sample.data, sample.name)).all()


def test_normalise_is_the_definition_in_float64():
    preprocessing = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    images = torch.randint(0, 256, (5, 7, 6, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocessing.mean, preprocessing.std))
    expected = ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    found = normalise(images, preprocessing)
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert (found - expected).abs().max() < 1e-6
    assert normalise(images, preprocessing, "cpu", torch.bfloat16).dtype == torch.bfloat16


def test_the_papers_range():
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 1, 1, 3)
    assert normalise(ends, Preprocessing()).flatten().tolist() == [-1, -1, -1, 1, 1, 1]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_out_the_same_batch(source, ranks):
    """Rank after rank, the rows of a global batch are those of one process, pixel by pixel."""
    whole = list(stream(source, batch_size=8))
    shares = [
        list(
            training_batches(
                source, SMALL, RULES, batch_size=8, seed=3, steps=9, workers=1 + rank % 2, rank=rank, ranks=ranks
            )
        )
        for rank in range(ranks)
    ]
    for step, batch in enumerate(whole):
        for name in COLUMNS:
            parts = [getattr(share[step], name) for share in shares]
            assert {len(part) for part in parts} == {8 // ranks}
            assert torch.equal(torch.cat(parts), getattr(batch, name))


@pytest.mark.parametrize("workers", [0, 3])
def test_skipped_images_are_counted_and_never_replaced(source, workers):
    whole = list(stream(source))
    broken = source.files[int(whole[1].indices_B[2])]
    with open(broken, "wb") as file:  # noqa: PTH123
        file.write(b"")
    found = list(
        training_batches(source, SMALL, RULES, batch_size=6, seed=3, steps=9, workers=workers, bad_images="skip")
    )
    skipped = 0
    for batch, expected in zip(found, whole, strict=True):
        kept = [row for row, index in enumerate(expected.indices_B.tolist()) if source.files[index] != broken]
        for name in COLUMNS:
            assert torch.equal(getattr(batch, name), getattr(expected, name)[kept])
        assert len(batch.skipped) == 6 - len(kept)
        assert all(reason.startswith(f"{broken}: it is empty (0 bytes)") for reason in batch.skipped)
        skipped += len(batch.skipped)
    assert skipped == sum(source.files[i] == broken for batch in whole for i in batch.indices_B.tolist()) > 0


def test_a_batch_of_bad_images_only_is_empty(source):
    for path in source.files:
        with open(path, "wb") as file:  # noqa: PTH123
            file.write(b"no image")
    found = list(evaluation_batches(source, SMALL, batch_size=5, workers=2, bad_images="skip"))
    assert [len(batch.labels_B) for batch in found] == [0, 0, 0, 0]
    assert sum(len(batch.skipped) for batch in found) == 16
    assert found[0].images_BHWC.shape == (0, 24, 32, 3)


def test_a_vanished_image_is_skipped_or_refused(source):
    first = next(stream(source))
    Path(source.files[int(first.indices_B[0])]).unlink()
    batches = training_batches(source, SMALL, RULES, batch_size=6, seed=3, steps=1, bad_images="skip")
    assert len(next(batches).skipped) == 1
    with pytest.raises(UserError, match="cannot be read"):
        next(stream(source))


def test_large_photos_are_shrunk_in_decoding_and_never_cached(tmp_path, photo, monkeypatch):
    """Photos of 640 x 427 for 24 x 32 pixels: each epoch reads them again, so that a crop's pixels depend on nothing
    that was read before."""
    for number in range(4):
        folder = tmp_path / "photos" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(encode(Image.fromarray(photo[number:, number:]), "JPEG"))
    opened = open_folder(tmp_path / "photos", "train")
    reads = []
    counted = type(opened).read
    monkeypatch.setattr(type(opened), "read", lambda self, index: reads.append(index) or counted(self, index))
    seen = list(training_batches(opened, SMALL, RULES, batch_size=len(opened), seed=0, steps=3, workers=0))
    assert len(reads) == 3 * len(opened)
    later = list(training_batches(opened, SMALL, RULES, batch_size=len(opened), seed=0, first_step=2, steps=3))
    same(seen[2], later[0])


def test_the_device_gets_the_same_pixels(source):
    """Augmentation left to the device: fewer pixels are changed by the threads, and the rest there."""
    for workers in (0, 2):
        plain = list(stream(source))
        left = training_batches(
            source, SMALL, replace(RULES, where="device"), batch_size=6, seed=3, steps=9, workers=workers
        )
        changed = 0
        for batch, expected in zip(left, plain, strict=True):
            assert len(batch.variations) == 6
            assert torch.equal(vary_batch(batch.images_BHWC, batch.variations), expected.images_BHWC)
            changed += not torch.equal(batch.images_BHWC, expected.images_BHWC)
        assert changed == 9


def _assembled(make, plans, rows, **options):
    """Batches of `rows` tiny images each, straight from the assembly."""
    given = (
        assembly.BatchIndices(step, np.arange(step * rows, (step + 1) * rows), np.zeros(rows, np.int64))
        for step in range(plans)
    )
    return assembly.assemble(given, make, np.zeros(plans * rows, np.int64), (2, 2), **options)


PIXELS = np.zeros((2, 2, 3), np.uint8)


def test_waiting_is_measured(source, monkeypatch):
    assert all(batch.waited > 0 for batch in stream(source, workers=0))
    now = [100.0]
    monkeypatch.setattr(assembly, "perf_counter", lambda: now[0])

    def make(epoch, index):
        now[0] += 0.5
        return PIXELS, None

    assert [batch.waited for batch in _assembled(make, 2, 3, workers=0)] == [1.5, 1.5]


def test_two_more_batches_are_made_meanwhile():
    made, enough = [], threading.Event()

    def make(epoch, index):
        made.append(index)
        if len(made) == 6:
            enough.set()
        return PIXELS, None

    batches = _assembled(make, 9, 2, workers=1)
    next(batches)
    assert enough.wait(30)
    batches.close()
    assert made == list(range(6))


def test_threads_share_a_batch_and_its_rows_stand_in_their_order(monkeypatch):
    """The second thread's rows are there before the first thread's are."""
    monkeypatch.setattr(assembly, "SMALLEST_CHUNK", 1)
    last = threading.Event()

    def make(epoch, index):
        if index == 0:
            assert last.wait(30)
        if index == 3:
            last.set()
        return PIXELS, f"variation {index}"

    (batch,) = _assembled(make, 1, 4, workers=2)
    assert batch.variations == tuple(f"variation {row}" for row in range(4))


def test_reasons_stand_in_the_order_of_the_rows():
    def make(epoch, index):
        raise UserError("zyx"[index])

    (batch,) = _assembled(make, 1, 3, workers=0, bad_images="skip")
    assert batch.skipped == ("z", "y", "x")
