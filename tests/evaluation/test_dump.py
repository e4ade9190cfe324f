"""The dump holds the prediction of every image, in both formats."""

import csv
import io
from dataclasses import dataclass

import numpy as np
import pytest

from vitlab.datasets.imagenet import ObjectNetMapping
from vitlab.errors import UserError
from vitlab.evaluation import dump
from vitlab.evaluation.accuracy import Accuracy

ANSWERS = Accuracy(np.array([0, 2]), np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], np.float32), np.array([0, 4]), 3)


@dataclass(frozen=True)
class _Named:
    name: str = "five"

    def key(self, index):
        return f'folder/a "{index}",\n.png'


def test_csv_by_hand(tmp_path):
    dump.write(ANSWERS, _Named(), ("cat", "dog", "=owl"), tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["number"] for row in rows] == ["0", "4"]
    assert rows[1]["image"] == 'folder/a "4",\n.png'
    assert [rows[1][name] for name in ("class", "predicted_class", "probability", "probability_of_label")] == [
        "=owl", "cat", "0.5", "0.2",
    ]  # fmt: skip
    assert [row["correct"] for row in rows] == ["1", "0"]
    assert rows[0]["top5"] == "0 1 2"


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    dump.write(ANSWERS, _Named(), None, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [list(row.values()) for row in table] == dump.rows(ANSWERS, _Named(), None)
    assert table[0]["class"] == "0"


@dataclass(frozen=True)
class _Objects:
    classes: tuple[str, ...] = ("Banana", "Bench", "Chair")
    name: str = "objects"

    def key(self, index):
        return f"{index}.png"


def _of_a_thousand(labels, shares):
    """Answers of 1,000 classes with these probabilities, {class: probability} of each image."""
    probabilities = np.zeros((len(labels), 1000), np.float32)
    for row, of_image in enumerate(shares):
        probabilities[row, list(of_image)] = list(of_image.values())
    return Accuracy(np.array(labels), probabilities)


def test_objectnet_is_correct_where_the_prediction_belongs_to_the_class(tmp_path):
    """Bench is ImageNet's 3, Chair its 10 and 11; Banana is none of its classes."""
    mapping = ObjectNetMapping({"Bench": (3,), "Chair": (10, 11)})
    shares = [{3: 0.6, 1: 0.4}, {10: 0.5, 11: 0.25, 3: 0.25}, {1: 0.7, 3: 0.3}, {0: 1.0}]
    answers = _of_a_thousand([1, 2, 1, 0], shares)
    table = dump.rows(answers, _Objects(), [f"n{number}" for number in range(1000)], objectnet=mapping)
    rows = [dict(zip(dump.columns(), row, strict=True)) for row in table]
    assert [row["correct"] for row in rows] == [1, 1, 0, None]
    assert [row["class"] for row in rows] == ["Bench", "Chair", "Bench", "Banana"]
    assert [row["predicted_class"] for row in rows] == ["Bench", "Chair", "n1", "n0"]
    assert [row["prediction"] for row in rows] == [3, 10, 1, 0]
    assert [row["probability_of_label"] for row in rows] == [0.6, 0.75, 0.3, None]
    parquet = pytest.importorskip("pyarrow.parquet")
    dump.write(answers, _Objects(), None, tmp_path / "out.parquet", objectnet=mapping)
    kept = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["correct"] for row in kept] == [1, 1, 0, None]
    assert [row["predicted_class"] for row in kept] == ["Bench", "Chair", "1", "0"]


@dataclass(frozen=True)
class _Validation:
    name: str = "val"

    def key(self, index):
        return f"ILSVRC2012_val_{index + 1:08d}.JPEG"


def test_real_is_correct_where_the_prediction_is_one_of_its_labels(tmp_path):
    answers = _of_a_thousand([5, 5, 5], [{7: 1.0}, {5: 1.0}, {5: 1.0}])
    dump.write(answers, _Validation(), None, tmp_path / "out.csv", real=[[6, 7], [6], []])
    with (tmp_path / "out.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["correct"] for row in rows] == ["1", "0", ""]
    assert [(row["label"], row["probability_of_label"]) for row in rows] == [("5", "0.0"), ("5", "1.0"), ("5", "1.0")]


@pytest.mark.parametrize(("name", "expected"), [("out.txt", "out.txt"), ("out", ".csv")])
def test_other_endings_are_refused(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected):
        dump.write(ANSWERS, _Named(), None, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="choose another"):
        dump.write(ANSWERS, _Named(), None, tmp_path / "out.csv")
