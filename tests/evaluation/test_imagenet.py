"""ReaL and ObjectNet on hand-made files, with images that have no label and classes that are not shared."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from vitlab.datasets.imagenet import ObjectNetMapping, read_objectnet_mapping, read_real_labels
from vitlab.errors import UserError
from vitlab.evaluation.accuracy import Accuracy, match_classes
from vitlab.evaluation.imagenet import objectnet_accuracy, real_accuracy


@dataclass(frozen=True)
class _Named:
    """Images of which there are only names."""

    keys: tuple[str, ...]
    classes: tuple[str, ...] = tuple(map(str, range(1000)))
    name: str = "hand-made"

    def key(self, index):
        return self.keys[index]


def _answers(labels, order):
    """Answers whose most probable classes are `order`, for each image, best first."""
    probabilities = np.zeros((len(order), 1000), np.float32)
    for row, classes in enumerate(order):
        probabilities[row, classes] = np.linspace(0.5, 0.1, len(classes))
    return Accuracy(np.array(labels), probabilities)


def _validation(*numbers):
    return _Named(tuple(f"val/n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in numbers))


@pytest.fixture(scope="module")
def real_labels(tmp_path_factory):
    """Image 1: 5; image 2: none; image 3: 7 or 8; the others: 0."""
    path = tmp_path_factory.mktemp("real") / "real.json"
    path.write_text(json.dumps([[5], [], [7, 8], *[[0]] * 49_997]))
    return read_real_labels(path)


def test_real_counts_any_of_an_images_labels_and_leaves_out_empty_lists(real_labels):
    source = _validation(1, 2, 3, 4)
    counted = real_accuracy(_answers([5, 5, 7, 0], [[5], [5], [8], [1]]), source, real_labels)
    assert (counted.correct, counted.images, counted.excluded) == (2, 3, 1)
    assert counted.top1 == pytest.approx(2 / 3)


def test_real_goes_by_the_images_numbers_not_by_their_order(real_labels):
    counted = real_accuracy(_answers([7, 5], [[7], [5]]), _validation(3, 1), real_labels)
    assert (counted.correct, counted.images) == (2, 2)


def test_real_knows_which_images_were_left_out(real_labels):
    answers = Accuracy(np.array([7]), _answers([7], [[7]]).probabilities_NK, np.array([2]), left_out=3)
    assert real_accuracy(answers, _validation(4, 4, 3, 4), real_labels).correct == 1


@pytest.mark.parametrize(
    ("source", "classes", "expected"),
    [
        (_validation(2), 1000, "has a label"),
        (_Named(("photo.jpg",)), 1000, "photo.jpg"),
        (_validation(50_001), 1000, "50001"),
        (_validation(1), 10, "10 outputs"),
    ],
)
def test_real_refuses(real_labels, source, classes, expected):
    answers = Accuracy(np.array([5]), np.eye(classes, dtype=np.float32)[[5]])
    with pytest.raises(UserError, match=expected):
        real_accuracy(answers, source, real_labels)


@pytest.fixture
def mapping(tmp_path):
    """Bench is ImageNet's 3; Chair 10 or 11; Banana is ObjectNet's alone."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    (folder / "objectnet_to_imagenet_1k.json").write_text(json.dumps({"Bench": "park bench", "Chair": "a; b"}))
    (folder / "imagenet_to_label_2012_v2").write_text("a\npark bench\nb\n")
    (folder / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps({"10": 0, "3": 1, "11": 2}))
    return read_objectnet_mapping(tmp_path)


OBJECTS = _Named(("a.png",) * 5, classes=("Banana", "Bench", "Chair"))


def test_objectnet_maps_predictions_and_leaves_out_what_is_not_shared(mapping):
    order = [[3, 10], [500, 3], [11, 3], [10, 11, 12, 13, 14], [954, 1]]
    counted = objectnet_accuracy(_answers([1, 1, 2, 1, 0], order), OBJECTS, mapping)
    # 500 is no class of ObjectNet: wrong, though the second guess is right. Banana does not count.
    assert (counted.correct, counted.images, counted.excluded) == (2, 4, 1)
    assert counted.correct_top5 == 3


def test_objectnet_without_a_shared_class(mapping):
    with pytest.raises(UserError, match="no image"):
        objectnet_accuracy(_answers([0, 0], [[3], [3]]), OBJECTS, mapping)
    with pytest.raises(UserError, match="no image"):
        objectnet_accuracy(_answers([1], [[3]]), OBJECTS, ObjectNetMapping({}))


def test_objectnet_needs_imagenets_outputs(mapping):
    with pytest.raises(UserError, match="10 outputs"):
        objectnet_accuracy(Accuracy(np.array([1]), np.eye(10, dtype=np.float32)[[3]]), OBJECTS, mapping)


SYNSETS = tuple(f"n{number:08d}" for number in range(1000))
NUMBERS = tuple(map(str, range(1000)))


@pytest.mark.parametrize(
    ("of_source", "of_model"),
    [(NUMBERS, SYNSETS), (SYNSETS, NUMBERS), (NUMBERS, tuple(f"thing {n}" for n in range(1000))), (SYNSETS, None)],
)
def test_imagenets_thousand_classes_have_one_order(of_source, of_model):
    np.testing.assert_array_equal(match_classes(of_source, of_model), np.arange(1000))


def test_synsets_in_another_order_go_by_name():
    np.testing.assert_array_equal(match_classes(SYNSETS, SYNSETS[::-1]), np.arange(1000)[::-1])


def test_digits_are_not_the_classes_of_another_model_of_ten():
    with pytest.raises(UserError, match="the model lacks 10"):
        match_classes(tuple(map(str, range(10))), tuple("abcdefghij"))
