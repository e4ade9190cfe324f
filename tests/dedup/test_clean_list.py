"""A clean list takes out what it names, of the data set that it names, and nothing else."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.planted import MemorySource, png
from vitlab.dedup import clean_list
from vitlab.dedup.clean_list import read_clean_list, without, write_clean_list
from vitlab.errors import UserError


@pytest.fixture
def source():
    return MemorySource("ten", [png(np.full((4, 5, 3), i, np.uint8)) for i in range(10)])


@pytest.fixture
def path(tmp_path, source):
    write_clean_list(tmp_path / "clean.json", source, [7, 2, 2], {"why": "a test"})
    return tmp_path / "clean.json"


def _changed(path, **values):
    content = json.loads(path.read_text()) | values
    del content["sha256"]
    path.write_text(json.dumps(content | {"sha256": clean_list._digest(content)}))


def test_what_is_listed_is_left_out(source, path):
    clean = without(source, path)
    kept = [0, 1, 3, 4, 5, 6, 8, 9]
    assert [clean.read(i).name for i in range(len(clean))] == [source.read(i).name for i in kept]
    assert [clean.key(i) for i in range(len(clean))] == [source.key(i) for i in kept]
    assert clean.labels_N.tolist() == source.labels_N[kept].tolist()
    assert clean.classes == source.classes
    assert clean.fingerprint not in (source.fingerprint, "")
    assert clean.name == "ten without 2 listed images"


def test_the_file_says_what_it_is_for(source, path):
    clean = read_clean_list(path)
    assert clean.removed == [(2, "00002"), (7, "00007")]
    assert (clean.source, clean.fingerprint, clean.images) == ("ten", source.fingerprint, 10)
    assert clean.reason == {"why": "a test"}


def test_the_same_list_is_the_same_bytes(source, path, tmp_path):
    write_clean_list(tmp_path / "again.json", source, iter([2, 7]), {"why": "a test"})
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_a_list_of_nothing_changes_nothing(source, tmp_path):
    write_clean_list(tmp_path / "none.json", source, [], {})
    assert without(source, tmp_path / "none.json") is source


def test_names_that_are_no_unicode_survive(tmp_path):
    class Named(MemorySource):
        def key(self, index):
            return f"\udcff{index}"

    source = Named("named", [b"1", b"2"])
    write_clean_list(tmp_path / "clean.json", source, [1], {})
    assert [without(source, tmp_path / "clean.json").key(i) for i in range(1)] == ["\udcff0"]


def test_another_data_sets_list_is_refused(path):
    other = MemorySource("other", [b"1", b"2"])
    with pytest.raises(
        UserError, match=r"was made for ten \(10 images, .*\), not for other \(2 images, .*`vitlab dedup`"
    ):
        without(other, path)


def test_a_list_of_as_many_other_images_is_refused(source, path):
    other = MemorySource("other", source.encoded)
    with pytest.raises(UserError, match="was made for ten "):
        without(other, path)


def test_a_list_that_removes_everything_is_refused(source, tmp_path):
    write_clean_list(tmp_path / "all.json", source, range(10), {})
    with pytest.raises(UserError, match="removes every image of ten"):
        without(source, tmp_path / "all.json")


def test_a_changed_list_is_refused(source, path):
    path.write_text(path.read_text().replace("00007", "00008"))
    with pytest.raises(UserError, match="changed after it was written"):
        without(source, path)


@pytest.mark.parametrize("removed", [[[10, "00010"]], [[3, "00004"]]])
def test_samples_that_are_not_there_are_refused(source, path, removed):
    _changed(path, removed=removed)
    with pytest.raises(UserError, match="is not 000"):
        without(source, path)


@pytest.mark.parametrize(
    "values", [{"version": 2}, {"format": "x"}, {"removed": [[-1, "a"]]}, {"more": 1}, {"images": "10"}]
)
def test_other_content_is_refused(source, path, values):
    _changed(path, **values)
    with pytest.raises(UserError, match="not a clean list of version 1"):
        without(source, path)


def test_a_missing_file_is_told_in_one_line(source, tmp_path):
    with pytest.raises(UserError, match="No such file") as caught:
        without(source, tmp_path / "none.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_parsed(path, monkeypatch):
    monkeypatch.setattr(clean_list, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="not a clean list"):
        read_clean_list(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.booleans())
def test_no_damage_goes_unnoticed(source, path, place, byte, cut):
    """A changed byte or a cut file is refused, unless it still says the same."""
    whole = path.read_bytes()
    place %= len(whole)
    damaged = path.with_name("damaged.json")
    damaged.write_bytes(whole[:place] if cut else whole[:place] + bytes([byte]) + whole[place + 1 :])
    try:
        assert read_clean_list(damaged) == read_clean_list(path)
    except UserError as error:
        assert "\n" not in str(error)
    deep = path.with_name("deep.json")
    deep.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not a clean list"):
        read_clean_list(deep)
