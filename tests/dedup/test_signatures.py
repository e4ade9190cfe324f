"""Records of images: what they hold, and how their files are kept, trusted and made again."""

import hashlib

import numpy as np
import pytest

from data.planted import MemorySource, png
from vitlab.data.images import decode
from vitlab.dedup import signatures
from vitlab.dedup.perceptual import hashes, thumbnail
from vitlab.dedup.signatures import RECORD, blocks, check_readable, sign_block, why_unreadable
from vitlab.errors import UserError


@pytest.fixture
def source():
    random = np.random.default_rng(0)
    images = [png(random.integers(0, 256, (9 + i, 20, 3), dtype=np.uint8)) for i in range(7)]
    return MemorySource("seven", images)


class Unreadable(MemorySource):
    """A source that must not be read."""

    def read(self, index):
        raise AssertionError(index)


def _twin(source, kind=MemorySource):
    """The same data set, read by another class."""
    return kind(source.name, source.encoded)


def test_a_record_holds_digests_hash_and_picture(source, tmp_path):
    counted = []
    records = sign_block(source, range(7), tmp_path, workers=2, progress=counted.append)
    assert counted[-1] == 7
    for i in range(7):
        image = decode(source.encoded[i], "image")
        assert records["file"][i].tobytes() == hashlib.blake2b(source.encoded[i], digest_size=16).digest()
        expected = hashlib.blake2b(f"{image.shape[0]} {image.shape[1]} ".encode() + image.tobytes(), digest_size=16)
        assert records["pixels"][i].tobytes() == expected.digest()
        assert (records["thumbnail"][i] == thumbnail(image)).all()
    assert (records["hash"] == hashes(records["thumbnail"])).all()
    assert records["readable"].all()


def test_what_was_written_is_not_worked_out_again(source, tmp_path):
    first = sign_block(source, range(7), tmp_path)
    again = sign_block(_twin(source, Unreadable), range(7), tmp_path)
    assert again.tobytes() == first.tobytes()


@pytest.mark.parametrize("damage", ["cut", "other", "long", "short", "object"])
def test_a_damaged_file_is_made_again(source, tmp_path, damage):
    first = sign_block(source, range(7), tmp_path)
    (path,) = tmp_path.rglob("*.npy")
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-5])
    elif damage == "other":
        path.write_bytes(b"not an array")
    elif damage == "long":
        path.write_bytes(whole + bytes(100_000))
    elif damage == "short":
        np.save(path, first[:6])
    else:
        np.save(path, np.array([{"a": 1}] * 7, object), allow_pickle=True)
    assert sign_block(source, range(7), tmp_path).tobytes() == first.tobytes()
    assert path.read_bytes() == whole


def test_blocks_cover_every_image_once(source, monkeypatch):
    assert blocks(source) == [range(7)]
    monkeypatch.setattr(signatures, "BLOCK", 3)
    assert blocks(source) == [range(3), range(3, 6), range(6, 7)]


def test_an_unreadable_image_is_a_row_of_zeros_and_named(source, tmp_path):
    broken = MemorySource("broken", [*source.encoded[:2], source.encoded[2][:60], b"", *source.encoded[4:]])
    records = sign_block(broken, range(7), tmp_path)
    assert np.flatnonzero(~records["readable"]).tolist() == [2, 3]
    assert records[2].tobytes() == bytes(RECORD.itemsize)
    check_readable(broken, [2, 3], "skip")
    check_readable(broken, [], "refuse")
    with pytest.raises(UserError, match=r"^broken 2: .*2 images of broken cannot be read.*--bad-images=skip$"):
        check_readable(broken, [2, 3], "refuse")
    assert why_unreadable(broken, 3).startswith("broken 3: it is empty")
    assert "can be now" in why_unreadable(broken, 0)
