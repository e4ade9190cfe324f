"""The search through a set in blocks: the same result however it is shared, stopped and gone on with."""

import numpy as np
import pytest

from data.planted import MemorySource, fashion_images, plant, png
from vitlab.data.images import decode
from vitlab.dedup import search as copy_search
from vitlab.dedup import signatures
from vitlab.dedup.duplicates import Thresholds
from vitlab.dedup.search import Embedding, Search, check_search, join, read_references, run_blocks
from vitlab.errors import UserError


@pytest.fixture(scope="module")
def planted():
    return plant(fashion_images("fashion-mnist"), 3, tests=20, others=60, each=True)  # 200 training images


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(signatures, "BLOCK", 64)
    monkeypatch.setattr(copy_search, "BLOCK", 64)


def _search(train, tests, folder, **options):
    values = {"near": True, "embedding": None, "thresholds": Thresholds(), "workers": 2} | options
    return Search(train=train, tests=tuple(tests), folder=folder, **values)


def _run(search, rank=0, ranks=1):
    return run_blocks(search, read_references(search, lambda done: None), lambda done: None, rank=rank, ranks=ranks)


def _result(search):
    _run(search)
    return join(search)


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_any_number_of_ranks_finds_the_same(planted, tmp_path, ranks):
    alone = _search(planted.train, [planted.test], tmp_path / "alone")
    expected = _result(alone)
    assert len(expected.pairs) >= 135
    shared = _search(planted.train, [planted.test], tmp_path / "shared")
    done = [_run(shared, rank, ranks) for rank in reversed(range(ranks))]
    assert sum(done) == len(planted.train)
    assert join(shared) == expected
    files = {path.relative_to(alone.folder): path.read_bytes() for path in alone.folder.rglob("*.*") if path.is_file()}
    assert files == {
        path.relative_to(shared.folder): path.read_bytes() for path in shared.folder.rglob("*.*") if path.is_file()
    }


def test_the_last_one_does_what_is_left(planted, tmp_path):
    search = _search(planted.train, [planted.test], tmp_path / "a")
    _run(search, 1, 3)
    assert _result(search) == _result(_search(planted.train, [planted.test], tmp_path / "b"))


def test_a_stopped_search_goes_on_where_it_was(planted, tmp_path):
    class Stops(MemorySource):
        left = 100

        def read(self, index):
            type(self).left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().read(index)

    class Counts(MemorySource):
        reads = 0

        def read(self, index):
            type(self).reads += 1
            return super().read(index)

    name, encoded = planted.train.name, planted.train.encoded
    with pytest.raises(KeyboardInterrupt):
        _run(_search(Stops(name, encoded), [planted.test], tmp_path / "a", workers=1))
    counts = _search(Counts(name, encoded), [planted.test], tmp_path / "a", workers=1)
    assert _result(counts) == _result(_search(planted.train, [planted.test], tmp_path / "b"))
    assert Counts.reads == 200 - 64
    _result(counts)
    assert Counts.reads == 200 - 64


def test_a_damaged_result_is_made_again(planted, tmp_path):
    search = _search(planted.train, [planted.test], tmp_path)
    expected = _result(search)
    paths = sorted(tmp_path.glob("pairs-*/*.json"))
    assert len(paths) == 4
    for damage in (b"{", b'{"pairs": [[0, 0, "x", 0, false]], "unreadable": []}', b'{"pairs": []}', b"[]",
                   b'{"pairs": [[0, 0, "file", 0.0, false]], "unreadable": []}'):  # fmt: skip
        paths[1].write_bytes(damage)
        assert _result(search) == expected


def test_other_thresholds_and_tests_are_not_taken_for_these(planted, tmp_path):
    loose = _result(_search(planted.train, [planted.test], tmp_path))
    strict = _result(_search(planted.train, [planted.test], tmp_path, thresholds=Thresholds(near=0.02)))
    exact = _result(_search(planted.train, [planted.test], tmp_path, near=False))
    assert len(exact.pairs) < len(strict.pairs) < len(loose.pairs)
    assert {pair.detector for pair in exact.pairs} <= {"file", "pixels"}
    other = MemorySource("other test", planted.test.encoded[:1])
    assert {pair.test for pair in _result(_search(planted.train, [other], tmp_path)).pairs} == {0}


def test_test_sets_are_numbered_one_after_the_other(planted, tmp_path):
    halves = [MemorySource(f"half {n}", planted.test.encoded[part]) for n, part in enumerate((slice(9), slice(9, 20)))]
    whole = _result(_search(planted.train, [planted.test], tmp_path))
    assert _result(_search(planted.train, halves, tmp_path)) == whole


def test_a_set_compared_with_itself(planted, tmp_path):
    images = [*planted.test.encoded, *planted.test.encoded[3:5], planted.train.encoded[0]]
    found = _result(_search(MemorySource("itself", images), [], tmp_path))
    exact = [(pair.train, pair.test) for pair in found.pairs if pair.detector == "file"]
    assert exact == [(20, 3), (21, 4)]
    assert all(pair.test < pair.train for pair in found.pairs)


def test_an_unreadable_image_is_refused_or_counted(planted, tmp_path):
    encoded = list(planted.train.encoded)
    encoded[100] = b"broken"
    broken = MemorySource("broken", encoded)
    skipping = _search(broken, [planted.test], tmp_path, bad_images="skip")
    found = _result(skipping)
    assert found.unreadable == (100,)
    refusing = _search(broken, [planted.test], tmp_path)
    for folder in (tmp_path, tmp_path / "new"):
        with pytest.raises(UserError, match=r"^broken 100: .*--bad-images=skip"):
            _result(_search(broken, [planted.test], folder))
    with pytest.raises(UserError, match="broken 100"):
        join(refusing)
    with pytest.raises(UserError, match="broken 100"):
        _run(_search(planted.train, [broken], tmp_path))


def test_features_are_compared_image_by_image(planted, tmp_path):
    """With pixels as features the pairs are those of a direct product, also beside images that cannot be read."""

    def features(source):
        pixels = [decode(source.read(i).data, "image")[:20, :20].ravel() for i in range(len(source))]
        return np.stack(pixels).astype(np.float32)

    encoded, tests = list(planted.train.encoded), [b"broken", *planted.test.encoded]
    encoded[5] = encoded[70] = b"broken"
    train, test = MemorySource("train", encoded), MemorySource("test", tests)
    search = _search(
        train, [test], tmp_path, near=False, embedding=Embedding("pixels", features), bad_images="skip",
        thresholds=Thresholds(cosine=0.98),
    )  # fmt: skip
    found = _result(search)
    rows = [i for i in range(200) if i not in (5, 70)]
    left = features(MemorySource("readable", [encoded[i] for i in rows])).astype(np.float64)
    right = features(planted.test).astype(np.float64)
    cosines = left @ right.T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)
    expected = {(rows[i], j + 1) for i, j in zip(*np.nonzero(cosines >= 0.98), strict=True)}
    assert len(expected) > 20
    assert {(pair.train, pair.test) for pair in found.pairs} == expected


def test_comparisons_that_say_nothing_are_refused(planted, tmp_path):
    same = MemorySource(planted.train.name, planted.train.encoded)
    with pytest.raises(UserError, match="same set as the training set.*give --train alone"):
        check_search(_search(planted.train, [same], tmp_path))
    with pytest.raises(UserError, match="same set as the test set .*give it once"):
        check_search(_search(planted.train, [planted.test, planted.test], tmp_path))
    check_search(_search(planted.train, [planted.test], tmp_path))
    check_search(_search(planted.train, [], tmp_path))


def test_progress_counts_every_image(planted, tmp_path):
    search = _search(planted.train, [planted.test], tmp_path)
    counted: list[int] = []
    references = read_references(search, counted.append)
    assert counted[-1] == 20
    counted.clear()
    run_blocks(search, references, counted.append)
    assert counted == sorted(counted)
    assert counted[-1] == 200
    counted.clear()
    run_blocks(search, references, counted.append)
    assert counted == [200]


def test_other_images_are_not_pairs(tmp_path):
    random = np.random.default_rng(0)
    noise = [png(random.integers(0, 256, (30, 30, 3), dtype=np.uint8)) for _ in range(40)]
    found = _result(_search(MemorySource("a", noise[:20]), [MemorySource("b", noise[20:])], tmp_path))
    assert found.pairs == ()
