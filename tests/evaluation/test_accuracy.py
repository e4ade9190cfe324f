"""Accuracy by hand, and every image counted once whatever the batch size."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vitlab import create_model
from vitlab.data.sources import Sample
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation.accuracy import Accuracy, measure
from vitlab.runtime import Runtime, choose

BY_HAND = Accuracy(
    labels_N=np.array([0, 1, 2, 2]),
    probabilities_NK=np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]], dtype=np.float32),
)


@dataclass(frozen=True)
class _Subset:
    """Some images of another source."""

    whole: object
    indices: np.ndarray
    classes: tuple[str, ...]
    name: str = "subset"
    fingerprint: str = "0" * 64

    @property
    def labels_N(self) -> np.ndarray:
        return self.whole.labels_N[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> Sample:
        return self.whole.read(int(self.indices[index]))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = create_model("ViT-Ti/7", num_classes=10, image_size=28, hidden=16, layers=1, heads=2, mlp=16)
    torch.nn.init.normal_(made.head.weight)
    return made


def test_top_k_confusion_and_cross_entropy_by_hand():
    assert BY_HAND.top(1) == 0.5
    assert BY_HAND.top(2) == 0.75
    assert BY_HAND.top(3) == 1.0
    assert BY_HAND.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert BY_HAND.per_class() == [1.0, 0.0, 0.5]
    assert BY_HAND.cross_entropy == pytest.approx(-np.log([0.7, 0.3, 0.7, 0.2]).mean())


def test_images_of_a_kind_add_up_and_what_is_left_out_is_not_counted():
    sure = [[0.0, 0.9, 0.1], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]
    found = Accuracy(np.array([1, 1, 1, 0]), np.array(sure, np.float32), np.array([0, 2, 3, 5]), left_out=4)
    assert found.confusion().tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert found.per_class() == [1.0, 2 / 3, None]
    assert found.top(1) == 0.75


def test_the_cross_entropy_of_what_was_held_to_be_hardly_possible():
    hardly = Accuracy(np.array([0]), np.array([[1e-30, 1.0]], np.float32))
    assert hardly.cross_entropy == pytest.approx(-np.log(1e-30), rel=1e-5)
    never = Accuracy(np.array([0]), np.array([[0.0, 1.0]], np.float32))
    assert 80 < never.cross_entropy < 100


def test_of_equal_scores_the_first_class_is_the_prediction():
    equal = Accuracy(np.array([0, 1, 2]), np.full((3, 3), 1 / 3, dtype=np.float32))
    assert equal.top(1) == pytest.approx(1 / 3)
    assert np.trace(equal.confusion()) == 1


@pytest.mark.parametrize("images", [1, 7, 50])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_image_counts_once_whatever_the_batch(model, images, batch_size):
    whole = open_source("digits", "test")
    source = _Subset(whole, np.arange(images), whole.classes)
    found = measure(model, source, model.preprocessing, choose("cpu"), batch_size=batch_size)
    alone = measure(model, source, model.preprocessing, choose("cpu"), batch_size=images)
    np.testing.assert_array_equal(found.labels_N, source.labels_N)
    np.testing.assert_allclose(found.probabilities_NK, alone.probabilities_NK, atol=1e-6)


def test_classes_are_matched_by_name(model):
    """A source that numbers its classes otherwise gives the same accuracy."""
    whole = open_source("digits", "test")
    source = _Subset(whole, np.flatnonzero(whole.labels_N < 2), whole.classes)
    names = (*whole.classes[5:], *whole.classes[:5])
    found = measure(model, source, model.preprocessing, choose("cpu"), classes=names)
    assert set(found.labels_N.tolist()) == {5, 6}


def test_classes_that_the_model_lacks_are_named(model):
    source = open_source("digits", "test")
    with pytest.raises(UserError, match="lacks 10 of the data's 10 classes"):
        measure(model, source, model.preprocessing, choose("cpu"), classes=("cat", "dog"))


def test_more_classes_than_outputs_are_refused():
    small = create_model("ViT-Ti/7", num_classes=3, image_size=28, hidden=16, layers=1, heads=2, mlp=16)
    whole = open_source("digits", "test")
    just_one_more = _Subset(whole, np.flatnonzero(whole.labels_N < 4), whole.classes)
    for source in (whole, just_one_more):
        with pytest.raises(UserError, match="10 classes and the model has 3"):
            measure(small, source, small.preprocessing, choose("cpu"))


@dataclass(frozen=True)
class _Torn(_Subset):
    """A subset of which some images cannot be read."""

    torn: tuple[int, ...] = ()

    def read(self, index: int) -> Sample:
        sample = super().read(index)
        return Sample(b"torn", sample.label, sample.name) if index in self.torn else sample


def test_images_that_cannot_be_read_end_it_or_are_left_out(model):
    whole = open_source("digits", "test")
    good = measure(model, _Subset(whole, np.arange(9), whole.classes), model.preprocessing, choose("cpu"))
    torn = _Torn(whole, np.arange(9), whole.classes, torn=(0, 4, 6))
    with pytest.raises(UserError):
        measure(model, torn, model.preprocessing, choose("cpu"))
    found = measure(model, torn, model.preprocessing, choose("cpu"), batch_size=2, bad_images="skip")
    kept = [1, 2, 3, 5, 7, 8]
    assert (found.indices_N.tolist(), found.left_out, found.images) == (kept, 3, 6)
    np.testing.assert_array_equal(found.labels_N, good.labels_N[kept])
    np.testing.assert_allclose(found.probabilities_NK, good.probabilities_NK[kept], atol=1e-6)


class _Flat(torch.nn.Module):
    """A model that takes an empty batch too."""

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return images_BCHW.flatten(1)[:, :10]


def test_images_none_of_which_can_be_read_are_one_line(model):
    whole = open_source("digits", "test")
    none = _Torn(whole, np.arange(2), whole.classes, torn=(0, 1))
    with pytest.raises(UserError, match="none of its 2 images can be read"):
        measure(_Flat(), none, model.preprocessing, choose("cpu"), bad_images="skip")


@pytest.mark.parametrize("torn", [(8,), tuple(range(9))])
def test_a_batch_of_which_no_image_can_be_read_is_no_trouble(model, torn):
    whole = open_source("digits", "test")
    source = _Torn(whole, np.arange(9), whole.classes, torn=torn)
    given = dict(batch_size=4, bad_images="skip")
    if len(torn) < 9:
        assert measure(model, source, model.preprocessing, choose("cpu"), **given).images == 9 - len(torn)
    else:
        with pytest.raises(UserError, match="none of its 9 images can be read"):
            measure(model, source, model.preprocessing, choose("cpu"), **given)


def test_nothing_is_drawn_in_evaluation():
    drawing = create_model("ViT-Ti/7", num_classes=10, image_size=28, hidden=16, layers=1, heads=2, mlp=16, dropout=0.5)
    torch.nn.init.normal_(drawing.head.weight)
    source = open_source("digits", "test")
    once, again = (measure(drawing.train(), source, drawing.preprocessing, choose("cpu")) for _ in range(2))
    np.testing.assert_array_equal(once.probabilities_NK, again.probabilities_NK)


def test_probabilities_are_float32_whatever_the_precision(model):
    runtime = Runtime(torch.device("cpu"), torch.bfloat16)
    found = measure(model, open_source("digits", "test"), model.preprocessing, runtime)
    np.testing.assert_allclose(found.probabilities_NK.sum(1), 1, atol=1e-6)


def test_the_model_is_left_as_it_was(model):
    model.train()
    measure(model, open_source("digits", "test"), model.preprocessing, choose("cpu"))
    assert model.training


def test_measuring_accuracy_loads_no_other_evaluation():
    """A training run needs `accuracy` alone; the package's names are imported when they are first used."""
    code = """
import sys
import vitlab
from vitlab.evaluation import accuracy
assert {name for name in sys.modules if name.startswith("vitlab.evaluation.")} == {"vitlab.evaluation.accuracy"}
assert vitlab.evaluation.accuracy is accuracy
assert callable(vitlab.evaluation.fewshot.solve)
assert set(dir(vitlab.evaluation)) == {"accuracy", "fewshot"}
assert not hasattr(vitlab.evaluation, "fewshots")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
