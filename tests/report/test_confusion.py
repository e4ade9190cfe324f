"""Confusion matrices: cells are the counts, and only counts that fit are drawn."""

import json
import re

import pytest

from report.small_runs import write_table
from vitlab.report.confusion import confusion_chart, confusion_charts
from vitlab.report.page import write_report
from vitlab.results import ResultTable


def test_a_cell_is_as_dark_as_its_share_of_the_row():
    chart = confusion_chart("Accuracy", ["cat", "dog", "<hat>"], [[8, 2, 0], [1, 3, 0], [0, 0, 5]])
    shares = [float(share) for share in re.findall(r'fill-opacity="([\d.]+)"', chart.svg)]
    assert shares == [0.8, 0.2, 0, 0.25, 0.75, 0, 0, 0, 1]
    assert re.findall(r">(\d+)</text>", chart.svg) == ["8", "2", "1", "3", "5"]
    assert "cat as dog (2), dog as cat (1)" in chart.note
    assert "&lt;hat&gt;" in chart.svg
    assert "no errors" in confusion_chart("a", ["x", "y"], [[1, 0], [0, 1]]).note


@pytest.mark.parametrize(
    "numbers",
    [
        {}, {"classes": ["a", "b"]}, {"classes": ["a", "b"], "confusion": [[1, 2]]}, {"classes": 3, "confusion": "x"},
        {"classes": ["a", "b"], "confusion": [[1, 2], [3]]}, {"classes": ["a", "b"], "confusion": [[1, -2], [3, 4]]},
        {"classes": ["a"] * 21, "confusion": [[1] * 21] * 21}, {"classes": [], "confusion": []},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_out(numbers):
    assert confusion_charts([ResultTable("t", numbers=numbers)]) == ()


def test_it_stands_on_the_page(tmp_path):
    numbers = {"classes": ["a", "<b>"], "confusion": [[3, 1], [0, 4]]}
    write_table(tmp_path / "results" / "accuracy.json", "Accuracy on clothes", ["x"], [["1"]], numbers=numbers)
    (tmp_path / "journey.json").write_text(json.dumps({"title": "t"}))
    text = write_report([tmp_path], tmp_path / "report.html").read_text()
    assert "Accuracy on clothes: confusion matrix" in text
    assert "a as &lt;b&gt; (1)" in text
    assert "Look for dark cells" in text
