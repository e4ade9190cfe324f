"""Images that stay in memory: a batch made at once has the pixels of images made one by one."""

import io
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from vitlab.data import in_memory
from vitlab.data.arrays import array_source
from vitlab.data.images import decode
from vitlab.data.in_memory import InMemoryImages, fit_in_memory
from vitlab.data.loader import CACHE_BYTES, training_batches
from vitlab.data.sources import Sample
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

SIZE = Preprocessing(size=(9, 6))
PLAIN = Augmentation(crop="pad", pad=2, flip=True)


@pytest.fixture(scope="module")
def source():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 9, 6, 3), dtype=np.uint8)
    labels_N = np.arange(40) % 3
    return array_source("noise", "train", ("a", "b", "c"), labels_N, 162, lambda index: pixels[index])


@dataclass(frozen=True, eq=False)
class _Broken:
    """A source, of which one image is something else."""

    whole: object
    index: int
    data: bytes

    def __len__(self):
        return len(self.whole)

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def read(self, index):
        sample = self.whole.read(index)
        return Sample(self.data, sample.label, sample.name) if index == self.index else sample


@dataclass(frozen=True, eq=False)
class _Encoded:
    """A source, whose images are files of a format."""

    whole: object
    format: str
    enlarge: int = 1

    def __len__(self):
        return len(self.whole)

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def read(self, index):
        sample, data = self.whole.read(index), io.BytesIO()
        image = Image.fromarray(decode(sample.data, sample.name))
        image.resize((self.enlarge * image.width, self.enlarge * image.height)).save(data, format=self.format)
        return Sample(data.getvalue(), sample.label, sample.name)


def _stream(source, rules, workers, preprocessing=SIZE, **options):
    given = dict(batch_size=7, seed=3, steps=20, workers=workers, **options)
    return list(training_batches(source, preprocessing, rules, **given))


@pytest.mark.parametrize("pad", [0, 1, 2, 20])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", ["none", "pad"])
def test_a_batch_at_once_has_the_same_pixels(source, crop, pad, flip):
    rules = Augmentation(crop=crop, pad=pad, flip=flip)
    assert fit_in_memory(source, SIZE, rules, CACHE_BYTES)
    for expected, found in zip(_stream(source, rules, 1), _stream(source, rules, 0), strict=True):
        assert torch.equal(found.images_BHWC, expected.images_BHWC)
        assert torch.equal(found.labels_B, expected.labels_B)


def test_without_threads_small_images_are_made_at_once(source, monkeypatch):
    made = []
    fill = InMemoryImages.fill
    monkeypatch.setattr(InMemoryImages, "fill", lambda *given: made.append(fill(*given)) or made[-1])
    _stream(source, PLAIN, 0)
    assert made == [True] * 20
    _stream(source, PLAIN, 1)
    _stream(source, replace(PLAIN, crop="inception"), 0)
    assert len(made) == 20


def test_every_image_is_read_once(source, monkeypatch):
    reads = []
    counted = type(source).read
    monkeypatch.setattr(type(source), "read", lambda self, index: reads.append(index) or counted(self, index))
    list(training_batches(source, SIZE, PLAIN, batch_size=8, seed=3, steps=15, workers=0))
    assert sorted(reads[1:]) == list(range(40))  # the first is looked at, whether it is small


def test_what_is_just_small_enough(source):
    assert fit_in_memory(source, SIZE, PLAIN, 40 * 9 * 6 * 3)
    assert fit_in_memory(_Encoded(source, "png"), Preprocessing(size=(64, 64)), PLAIN, CACHE_BYTES)


def test_what_does_not_fit(source):
    assert not fit_in_memory(source, Preprocessing(size=(65, 64)), PLAIN, CACHE_BYTES)
    assert not fit_in_memory(source, SIZE, replace(PLAIN, crop="inception"), CACHE_BYTES)
    assert not fit_in_memory(source, SIZE, replace(PLAIN, randaugment_layers=2, randaugment_magnitude=9), CACHE_BYTES)
    assert not fit_in_memory(source, SIZE, replace(PLAIN, erase=0.5), CACHE_BYTES)
    assert not fit_in_memory(source, SIZE, PLAIN, 40 * 9 * 6 * 3 - 1)
    assert not fit_in_memory(_Encoded(source, "png", enlarge=9), SIZE, PLAIN, CACHE_BYTES)
    assert not fit_in_memory(_Broken(source, 0, b"P6 damaged"), SIZE, PLAIN, CACHE_BYTES)


@pytest.mark.parametrize("format", ["png", "jpeg", "gif"])
@pytest.mark.parametrize(
    "preprocessing",
    [SIZE, Preprocessing(size=(13, 17)), Preprocessing(size=(4, 5), resize="shorter_side", crop=0.8)],
)
def test_tiny_images_fit_in_every_format_and_size(source, format, preprocessing):
    encoded = _Encoded(source, format)
    assert fit_in_memory(encoded, preprocessing, PLAIN, CACHE_BYTES)
    for rules in (PLAIN, Augmentation(crop="none")):
        expected, found = (_stream(encoded, rules, workers, preprocessing=preprocessing) for workers in (1, 0))
        for one, other in zip(expected, found, strict=True):
            assert torch.equal(other.images_BHWC, one.images_BHWC)


def test_larger_ones_must_be_raw_and_of_the_size(monkeypatch, source):
    monkeypatch.setattr(in_memory, "TINY", 9 * 6 - 1)
    assert fit_in_memory(source, SIZE, PLAIN, CACHE_BYTES)
    assert not fit_in_memory(_Encoded(source, "png"), SIZE, PLAIN, CACHE_BYTES)
    assert not fit_in_memory(source, Preprocessing(size=(10, 6)), PLAIN, CACHE_BYTES)
    assert not fit_in_memory(source, Preprocessing(size=(8, 6)), PLAIN, CACHE_BYTES)
    assert not fit_in_memory(source, replace(SIZE, crop=0.9), PLAIN, CACHE_BYTES)


def test_an_image_that_is_large_after_all_is_made_as_ever(source):
    other = _Encoded(source, "png", enlarge=9).read(0).data
    mixed = _Broken(source, 11, other)
    for expected, found in zip(_stream(mixed, PLAIN, 1), _stream(mixed, PLAIN, 0), strict=True):
        assert torch.equal(found.images_BHWC, expected.images_BHWC)


def test_an_image_that_cannot_be_read_is_left_out_as_ever(source):
    broken = _Broken(source, 11, b"P6 damaged")
    pairs = zip(_stream(broken, PLAIN, 1, bad_images="skip"), _stream(broken, PLAIN, 0, bad_images="skip"), strict=True)
    skipped = 0
    for expected, found in pairs:
        assert found.skipped == expected.skipped
        assert torch.equal(found.images_BHWC, expected.images_BHWC)
        skipped += len(found.skipped)
    assert skipped
