"""One table of results, from the command that measured it to the report that shows it."""

import json

import pytest
from pydantic import ValidationError

from vitlab.errors import UserError
from vitlab.results import Headline, ResultTable, file_name, read_table, write_table

TABLE = ResultTable(
    title="Accuracy on Déjà-vu",
    columns=["class", "images", "top-1"],
    rows=[["all", 10, 0.5], ["b\x1b[31m", None, True]],
    summary="Half.",
    notes=["a note"],
    headline=[Headline("top-1", "50.00", "%"), Headline("images", 10)],
    numbers={"dataset": "digits", "per_class": [0.5, None], "interval": (0.1, 0.9)},
)


def test_a_written_table_is_read_as_the_same_table(tmp_path):
    write_table(TABLE, tmp_path / "results" / "a.json")
    read = read_table(tmp_path / "results" / "a.json")
    assert read.numbers == {**TABLE.numbers, "interval": [0.1, 0.9]}
    assert [read.title, read.summary, read.columns, read.rows, read.notes, read.headline] == [
        TABLE.title, TABLE.summary, TABLE.columns, TABLE.rows, TABLE.notes, TABLE.headline,
    ]  # fmt: skip
    assert (type(read.rows[1][2]), type(read.rows[0][1]), type(read.rows[0][2])) == (bool, int, float)


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    fields = {
        "title": "t", "summary": None, "columns": ["a"], "rows": [["x"], [1]], "notes": [],
        "headline": [{"label": "l", "value": "1.0", "unit": "%"}], "numbers": {},
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(fields))
    expected = ResultTable("t", ["a"], [["x"], [1]], headline=[Headline("l", "1.0", "%")])
    assert read_table(tmp_path / "a.json") == expected
    assert json.loads(expected.to_json()) == fields


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "dictionary"),
        ("{}", "title"),
        ('{"title": "t", "rows": [["a"]]}', "row 1 has 1 cells for 0 columns"),
        ('{"title": "t", "columns": "ab"}', "columns"),
        ('{"title": "t", "colour": "red"}', "colour"),
        ('{"title": "t", "headline": [{"label": "x"}]}', "headline"),
        ('{"title": "t", "numbers": ' + "[" * 10**5, "JSON"),
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path, text, reason):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        read_table(tmp_path / "a.json")
    assert str(tmp_path / "a.json") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_whose_rows_do_not_fit_cannot_be_made():
    with pytest.raises(ValidationError, match="row 2 has 1 cells for 2 columns"):
        ResultTable("t", ["a", "b"], [[1, 2], [3]])


def test_names_of_files_are_safe_and_not_too_long():
    assert file_name("evaluate", "photos/../my set") == "evaluate-photos-..-my-set.json"
    assert file_name("evaluate", "") == "evaluate.json"
    assert len(file_name("evaluate", "x" * 500)) == 105
