"""Prefetching changes nothing, and closes what it reads from."""

import threading

import torch

from vitlab.data.assembly import prefetched
from vitlab.data.loader import training_batches
from vitlab.datasets.catalog import open_source
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing


def stream(workers, steps=4):
    source = open_source("digits", "train")
    rules = {"batch_size": 32, "seed": 1, "steps": steps, "workers": workers}
    return training_batches(source, Preprocessing(size=(8, 8)), Augmentation(), **rules)


def test_batches_come_through_unchanged():
    found = list(prefetched(stream(2), torch.device("cpu")))
    for first, second in zip(found, stream(0), strict=True):
        assert first.step == second.step
        assert torch.equal(first.images_BHWC, second.images_BHWC)
        assert torch.equal(first.labels_B, second.labels_B)


def test_closing_early_stops_the_threads():
    batches = prefetched(stream(2, steps=10**6), torch.device("cpu"))
    next(batches)
    assert any(thread.name.startswith("vitlab-data") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("vitlab-data") for thread in threading.enumerate())
