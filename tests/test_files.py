"""Writes are atomic: a file or a folder is the old one or the new one."""

import pytest

from vitlab import files


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "file.json"
    files.write_json(path, {"é": 1})
    files.write_json(path, {"é": 2})
    assert path.read_text() == '{\n  "é": 2\n}\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_debris(tmp_path):
    files.write_text(tmp_path / "file", "old")
    with pytest.raises(TypeError):
        files.write_bytes(tmp_path / "file", "not bytes")
    assert (tmp_path / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        with files.folder_aside(tmp_path / "folder") as aside:
            (aside / "file").write_text(content)
            assert (tmp_path / "folder").exists() == (content == "new")
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_fails_leaves_the_old_one_and_no_debris(tmp_path):
    with files.folder_aside(tmp_path / "folder") as aside:
        (aside / "file").write_text("old")
    with pytest.raises(RuntimeError), files.folder_aside(tmp_path / "folder") as aside:
        (aside / "file").write_text("new")
        raise RuntimeError
    assert (tmp_path / "folder" / "file").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
