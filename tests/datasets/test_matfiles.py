"""MATLAB files of version 5, against scipy, and under damage."""

import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vitlab.datasets.annotation_files import read_mat
from vitlab.errors import UserError

KINDS = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "u8", "i8"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KINDS).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=2, max_dims=4, max_side=5))
    ),
    st.booleans(),
)
def test_arrays_are_those_that_were_saved(tmp_path_factory, array, compress):
    path = tmp_path_factory.getbasetemp() / "x.mat"
    other = {"text": "abc", "cell": np.array([1, "x"], object), "struct": {"a": 1}, "complex": np.array([[1j]])}
    scipy.io.savemat(path, {"first": np.arange(3.0), **other, "wanted": array}, do_compression=compress)
    found = read_mat(path, ("wanted", "first"))
    assert (found["first"] == np.arange(3.0)).all()
    assert found["wanted"].shape == array.shape
    np.testing.assert_array_equal(found["wanted"], array)
    for name in ("cell", "struct", "complex", "missing"):
        with pytest.raises(UserError, match=f"there is no array '{name}' in it"):
            read_mat(path, (name,))


@pytest.mark.parametrize("compress", [True, False])
def test_damage_gives_arrays_or_one_line(tmp_path, compress):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"a": np.arange(40, dtype=np.uint8), "b": np.eye(3)}, do_compression=compress)
    whole = path.read_bytes()

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=4),
        st.none() | st.integers(0, len(whole)),
    )
    def damaged(changes, cut):
        broken = bytearray(whole)
        for position, value in changes:
            broken[position] = value
        path.write_bytes(bytes(broken[:cut]))
        try:
            read_mat(path, ("a",))
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)

    damaged()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.mat"
    with pytest.raises(UserError, match="it cannot be read"):
        read_mat(path, ("a",))
    for content in (b"", b"x" * 500, b"\x89HDF\r\n" + bytes(500)):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a little-endian MATLAB file of version 5"):
            read_mat(path, ("a",))


def test_a_compression_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "x.mat"
    scipy.io.savemat(path, {"a": np.zeros((1000, 1000), np.uint8)}, do_compression=True)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr("vitlab.datasets.annotation_files.MAX_BYTES", 100_000)
    with pytest.raises(UserError, match="an array of more than 100,000 bytes"):
        read_mat(path, ("a",))
