"""How glibc is configured, and when it is asked to return memory."""

from types import SimpleNamespace

import pytest

from serving.servers import ask, encoded, noise
from vitlab.serving import app, memory


def test_glibc_uses_one_arena_and_is_trimmed(monkeypatch):
    options, trimmed = {}, []
    glibc = SimpleNamespace(mallopt=options.__setitem__, malloc_trim=trimmed.append)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: glibc)
    memory.use_one_arena()
    assert options == {-8: 1}  # M_ARENA_MAX
    memory.trim_memory()
    assert trimmed == [0]


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace())
    memory.use_one_arena()
    memory.trim_memory()


@pytest.mark.parametrize(
    ("data", "status", "times"),
    [
        (encoded(noise()), 200, 0),
        (encoded(noise(shape=(1100, 1100, 3)) // 255), 200, 0),  # 3.6 MB
        (encoded(noise(shape=(1200, 1200, 3)) // 255), 200, 1),  # 4.3 MB
        (encoded(noise(shape=(1200, 1200, 3)))[: 2**20], 422, 1),  # it is cut off
        (encoded(noise())[:5000], 422, 0),
    ],
    ids=["small", "just-small", "large", "large-and-damaged", "small-and-damaged"],
)
def test_memory_is_given_back_after_large_images_alone(port, monkeypatch, data, status, times):
    given = []
    monkeypatch.setattr(app, "trim_memory", lambda: given.append(True))
    assert ask(port, "/api/predict", data, content_type="image/png")[0] == status
    assert len(given) == times
