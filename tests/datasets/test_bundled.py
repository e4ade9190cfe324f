"""The bundled data sets against where they come from."""

import io
import lzma
import runpy
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from hypothesis import given
from hypothesis.extra import numpy as arrays
from PIL import Image

from vitlab.data.images import decode
from vitlab.datasets import array_files, catalog
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError

BUNDLED = Path(catalog.__file__).parent / "bundled"
MAKER = Path(__file__).parents[2] / "tools/make_bundled.py"
MAKER_FUNCTIONS = runpy.run_path(str(MAKER))
needs_debian = pytest.mark.skipif(
    not array_files.FASHION_FOLDER.is_dir(), reason=f"needs Debian's package {array_files.FASHION_PACKAGE}"
)


def grey_images(source):
    images = [decode(sample.data, sample.name) for sample in map(source.read, range(len(source)))]
    assert all((image == image[:, :, :1]).all() for image in images)
    return np.stack(images)[:, :, :, 0]


@pytest.mark.parametrize(
    ("name", "split", "counts", "side"),
    [
        ("fashion-mnist", "train", [600] * 10, 28),
        ("fashion-mnist", "test", [100] * 10, 28),
        ("digits", "train", None, 8),
        ("digits", "test", None, 8),
    ],
)
def test_sizes_and_balance(name, split, counts, side):
    source = open_source(name, split)
    found = np.bincount(source.labels_N)
    if counts is None:
        assert found.sum() == {"train": 1297, "test": 500}[split]
        assert found.max() - found.min() <= 8  # the whole set is not quite balanced: 174 to 183 of a class
    else:
        assert found.tolist() == counts
    assert source.labels_N.tolist() == [source.read(index).label for index in range(len(source))]
    assert grey_images(source).shape == (len(source), side, side)


def test_class_names():
    assert open_source("fashion-mnist", "test").classes == (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    assert open_source("digits", "test").classes == tuple("0123456789")


def test_the_digits_are_scikit_learns():
    original = sklearn.datasets.load_digits()
    wanted = {(image.tobytes(), label) for image, label in zip(original.images, original.target, strict=True)}
    found = set()
    for split in ("train", "test"):
        source = open_source("digits", split)
        for image, label in zip(grey_images(source), source.labels_N, strict=True):
            found.add((np.rint(image * (16 / 255)).astype(float).tobytes(), label))
    assert found == wanted


@needs_debian
def test_the_clothes_are_the_first_of_each_class():
    for split, count in (("train", 600), ("test", 100)):
        whole, part = open_source("fashion-mnist-full", split), open_source("fashion-mnist", split)
        assert part.classes == whole.classes
        for label in range(10):
            first = np.flatnonzero(whole.labels_N == label)[:count]
            mine = np.flatnonzero(part.labels_N == label)
            for here, there in zip(mine[::17].tolist(), first[::17].tolist(), strict=True):
                assert (decode(part.read(here).data, "x") == decode(whole.read(there).data, "x")).all()


@needs_debian
@pytest.mark.long
def test_making_them_again_gives_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_bundled.py", str(tmp_path)])
    # The strongest preset takes a while and changes nothing that is compared here.
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0}]
    compress = lzma.compress
    monkeypatch.setattr("lzma.compress", lambda data, *options, **_: compress(data, *options, filters=filters))
    runpy.run_path(str(MAKER), run_name="__main__")
    for name in ("fashion-mnist", "digits"):
        for split in ("train", "test"):
            made, kept = tmp_path / name, BUNDLED / name
            index = f"{split}.index.json"
            assert (made / index).read_bytes() == (kept / index).read_bytes()
            unpacked = [lzma.decompress((folder / f"{split}.tar.xz").read_bytes()) for folder in (made, kept)]
            assert unpacked[0] == unpacked[1]


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_the_makers_png_is_read_back(image):
    data = MAKER_FUNCTIONS["grey_png"](image)
    assert (np.array(Image.open(io.BytesIO(data))) == image).all()
    assert (decode(data, "x") == image[:, :, None]).all()


def test_they_are_small_and_licensed():
    files = [path for path in BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4e6
    assert "Zalando SE" in (BUNDLED / "fashion-mnist/LICENSE").read_text()
    assert "MIT License" in (BUNDLED / "fashion-mnist/LICENSE").read_text()
    assert "BSD 3-Clause" in (BUNDLED / "digits/LICENSE").read_text()


@pytest.mark.parametrize("damage", ["cut", "replace", "remove", "bomb"])
def test_a_damaged_installation_is_one_line(tmp_path, monkeypatch, damage):
    folder = tmp_path / "bundled/digits"
    folder.mkdir(parents=True)
    for path in (BUNDLED / "digits").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    shard = folder / "test.tar.xz"
    match damage:
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-9000])
        case "replace":
            shard.write_bytes(b"x" * 100)
        case "remove":
            shard.unlink()
        case "bomb":
            shard.write_bytes(lzma.compress(bytes(200 * 2**20), preset=0))
    monkeypatch.setattr("vitlab.datasets.catalog.files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"^digits: the bundled files are .*; install vitlab again$"):
        open_source("digits", "test")
