"""The dump holds what was said of every image, in both formats."""

import csv
import io
from dataclasses import dataclass

import numpy as np
import pytest

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
    assert [row["right"] for row in rows] == ["1", "0"]
    assert rows[0]["top5"] == "0 1 2"


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    dump.write(ANSWERS, _Named(), None, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [list(row.values()) for row in table] == dump.rows(ANSWERS, _Named(), None)
    assert table[0]["class"] == "0"


@pytest.mark.parametrize(("name", "expected"), [("out.txt", "out.txt"), ("out", ".csv")])
def test_other_endings_are_refused(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected):
        dump.write(ANSWERS, _Named(), None, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="choose another"):
        dump.write(ANSWERS, _Named(), None, tmp_path / "out.csv")
