"""Parquet files and hub data sets: columns, labels, splits, and what is refused; against pyarrow's own reading."""

import io
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import datasets
from data.layouts import jpeg
from data.parquet_files import put, table
from vitlab.data.images import decode
from vitlab.datasets import hub
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """The tables' copies go into the test's folder, and nothing is asked over the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def refused(source, part="train"):
    with pytest.raises(UserError) as caught:
        open_source(str(source), part)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(source).partition("?")[0])
    return message


@pytest.fixture
def folder(tmp_path):
    """A hub data set's folder: data/SPLIT-00000-of-00002.parquet, three named classes."""
    root = tmp_path / "repo"
    for split, counts in (("train", (20, 11)), ("validation", (9,)), ("test", (6,))):
        for number, count in enumerate(counts):
            name = f"{split}-{number:05d}-of-{len(counts):05d}.parquet"
            put(root / "data" / name, [(row + number) % 3 for row in range(count)], names=["ant", "bee", "cow"])
    return root


def test_rows_are_those_of_the_files(folder):
    train, test = open_source(str(folder), "train"), open_source(str(folder), "test")
    assert (len(train), len(test)) == (31, 9)
    assert train.classes == test.classes == ("ant", "bee", "cow")
    files = sorted((folder / "data").glob("train-*"))
    rows = pyarrow.concat_tables(pyarrow.parquet.read_table(file) for file in files).to_pylist()
    for index in np.random.default_rng(0).permutation(31).tolist():
        sample = train.read(index)
        assert (sample.data, sample.label) == (rows[index]["image"]["bytes"], rows[index]["label"])
        assert sample.name == f"{folder} (train split): row {index}"
    assert train.key(4) == "train/4"
    assert decode(train.read(0).data, "x").shape == (8, 8, 3)


def test_a_data_set_of_the_hub_is_read_alike(folder, monkeypatch):
    """`datasets` resolves a local folder as it does a repository; only the address is put in its place."""
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n"
        "  - split: train\n    path: data/train-*\n  - split: val\n    path: data/test-*\n---\n"
    )
    real = datasets.load_dataset
    asked = []

    def load(name, config=None, **options):
        asked.append((name, config, options))
        return real(str(folder), config)

    monkeypatch.setattr(datasets, "load_dataset", load)
    train, test = open_source("hf://owner/name@small", "train"), open_source("hf://owner/name@small", "test")
    assert asked == [("owner/name", "small", {})] * 2
    assert (len(train), len(test)) == (31, 6)
    assert train.read(2).data == jpeg(2)
    with pytest.raises(UserError, match=r"^hf://owner/name@big: it cannot be read .*small"):
        open_source("hf://owner/name@big", "train")


def test_single_files_and_patterns_and_folders_by_split(tmp_path):
    put(tmp_path / "all.parquet", [0, 1] * 20, names=["a", "b"])
    train, test = (open_source(str(tmp_path / "all.parquet"), part) for part in ("train", "test"))
    assert (len(train), len(test)) == (32, 8)
    assert {source.key(i) for source in (train, test) for i in range(len(source))} == {f"train/{i}" for i in range(40)}
    for split, count in (("train", 6), ("test", 4)):
        put(tmp_path / "split" / split / "0.parquet", [0, 1] * count, names=["a", "b"])
    assert len(open_source(str(tmp_path / "split"), "test")) == 8
    put(tmp_path / "x" / "train-0.parquet", [0, 1], names=["a", "b"])
    put(tmp_path / "x" / "test-0.parquet", [1], names=["a", "b"])
    assert len(open_source(str(tmp_path / "x" / "*.parquet"), "test")) == 1
    assert "there is no such Parquet file" in refused(tmp_path / "none.parquet")


def test_plain_numbers_and_plain_bytes(tmp_path):
    rows = pyarrow.table(
        {"png": pyarrow.array([jpeg(row) for row in range(12)], pyarrow.binary()), "class": [0, 1, 2] * 4}
    )
    pyarrow.parquet.write_table(rows, tmp_path / "train.parquet")
    pyarrow.parquet.write_table(rows.slice(0, 2), tmp_path / "test.parquet")
    train, test = open_source(str(tmp_path), "train"), open_source(str(tmp_path), "test")
    assert train.classes == test.classes == ("0", "1", "2")
    assert train.read(11).data == jpeg(11)


def test_columns_that_the_user_names(tmp_path):
    path = put(
        tmp_path / "t.parquet",
        [0, 1] * 5,
        image="photo",
        label="coarse",
        more={"fine": [0, 1, 2, 3, 4] * 2, "name": ["x"] * 10},
    )
    message = refused(path)
    assert "it has no clear label column; name one as SOURCE?label=COLUMN" in message
    assert "its columns are photo (Image), coarse (int64), fine (int64), name (string)" in message
    assert len(open_source(f"{path}?label=fine", "train").classes) == 5
    assert len(open_source(f"{path}?image=photo&label=coarse", "train").classes) == 2
    assert "there is no column 'fein'; its columns are" in refused(f"{path}?label=fein")
    assert "its column 'name' holds no images" in refused(f"{path}?image=name&label=fine")


@pytest.mark.parametrize(
    ("labels", "kind", "names", "message"),
    [
        ([0, 1, -1, -1], None, ["a", "b"], "row 2 has the label -1 in column 'label' (int64)"),
        (
            [0, 1, 1, 2],
            None,
            ["a", "b"],
            "row 3 has the label 2 in column 'label' (int64); labels are whole numbers from 0 to 1",
        ),
        ([0, 1, None, 2], None, None, "row 2 has the label None"),
        ([0.0, 1.0, 1.0, float("nan")], None, None, "row 3 has the label nan in column 'label' (double)"),
        ([0.0, 1.0, 1.0, 0.5], None, None, "row 0 has the label 0.0 in column 'label' (double)"),
        (["cat", "dog", "cat", "dog"], None, None, "row 0 has the label 'cat' in column 'label' (string)"),
        ([True, False, True, False], None, None, "row 0 has the label True"),
        ([0, 1, 10**9, 0], None, None, "row 2 has the label 1000000000"),
        ([0, 0, 0, 0], None, None, "there is only the class '0'"),
        ([], pyarrow.int64(), ["a", "b"], "it cannot be read (ArrowInvalid: "),
    ],
)
def test_the_first_bad_label_is_named(tmp_path, labels, kind, names, message):
    put(tmp_path / "t/train.parquet", labels, kind, names, rows_a_group=2)
    put(tmp_path / "t/test.parquet", [0, 1], names=["a", "b"])
    assert message in refused(tmp_path / "t")


def test_a_test_side_of_other_classes(tmp_path):
    put(tmp_path / "train.parquet", [0, 1], names=["a", "b"])
    put(tmp_path / "test.parquet", [0, 1], names=["b", "a"])
    assert "its classes in column 'label' differ from the training side's" in refused(tmp_path, "test")
    put(tmp_path / "test.parquet", [0, 7])
    assert "row 1 has the label 7" in refused(tmp_path, "test")


def test_a_split_without_rows():
    empty = datasets.Dataset(table([], pyarrow.int64(), ["a", "b"], cells=[]))
    with pytest.raises(UserError, match="^x: it has no rows"):
        hub.table_source(empty, "train", "x", hub.Columns())


def test_nothing_is_said_beside_the_one_line(tmp_path, capfd, caplog):
    put(tmp_path / "x/train.parquet", [], pyarrow.int64(), ["a", "b"], cells=[])
    refused(tmp_path / "x")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []  # `datasets` would log an error of its own


def test_a_missing_column_or_side(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    assert "it has no clear image column; name one as SOURCE?image=COLUMN; its columns are text (string)" in refused(
        tmp_path
    )
    put(tmp_path / "y/test.parquet", [0, 1], names=["a", "b"])
    put(tmp_path / "y/validation.parquet", [0, 1], names=["a", "b"])
    assert "none of its splits is called train: " in refused(tmp_path / "y")


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 not really PAR1")
    assert "it cannot be read" in refused(tmp_path)


def test_text_is_no_image(tmp_path):
    struct = pyarrow.array([{"bytes": "x", "path": "y"}] * 4)
    rows = pyarrow.table({"image": struct, "label": [0, 1, 0, 1]})
    pyarrow.parquet.write_table(rows, tmp_path / "t.parquet")
    assert "its column 'image' holds no images" in refused(tmp_path / "t.parquet")


@pytest.mark.parametrize("cell", [{"bytes": None, "path": None}, {"bytes": None, "path": "/etc/hostname"}, None])
def test_a_cell_without_bytes_reads_no_file(tmp_path, cell):
    cells = [{"bytes": jpeg(0), "path": None}] * 9 + [cell]
    file = put(tmp_path / "t.parquet", [0, 1] * 5, cells=cells)
    splits = hub.parquet_splits({"train": [file]}, str(file))
    source = hub.split_source(splits, "train", str(file), hub.Columns())
    assert source.read(8).data == jpeg(0)
    with pytest.raises(UserError, match="row 9: its cell holds no bytes"):
        source.read(9)


def test_a_cell_that_is_too_large(tmp_path, monkeypatch):
    path = put(tmp_path / "t.parquet", [0, 1] * 5)
    source = open_source(str(path), "train")
    monkeypatch.setattr("vitlab.datasets.tables.MAX_BYTES", 10)
    with pytest.raises(UserError, match="bytes are more than the 10 that are read"):
        source.read(0)


def test_an_image_folder_of_the_hub_reads_its_own_files(tmp_path, monkeypatch):
    for name in ("ant", "bee"):
        for number in range(3):
            path = tmp_path / "repo/train" / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(number))
    splits = dict(datasets.load_dataset(str(tmp_path / "repo")))
    source = hub.split_source(splits, "train", "hf://owner/name", hub.Columns())
    assert source.classes == ("ant", "bee")
    assert sorted(source.read(index).data for index in range(6)) == sorted(jpeg(n) for n in range(3) for _ in range(2))


def test_code_of_a_data_set_is_never_run(tmp_path, monkeypatch):
    script = tmp_path / "evil/evil.py"
    script.parent.mkdir()
    script.write_text(f"open({str(tmp_path / 'canary')!r}, 'w').write('x')\n")
    assert "it is a script, and code of a data set is never run" in refused(tmp_path / "evil")
    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: real(str(tmp_path / "evil")))
    assert "it is a script, and code of a data set is never run" in refused("hf://owner/evil")
    assert not (tmp_path / "canary").exists()


def test_the_hub_out_of_reach_and_no_id(monkeypatch):
    def fail(name, config):
        raise ConnectionError("Couldn't reach it\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    assert "it is not in the local cache, and the hub cannot be reached" in refused("hf://owner/name")
    for wrong in ("hf://name", "hf://a/b/c", "hf://a/b@", "hf://a/../b"):
        assert "this is not a hub id" in refused(wrong)


class _Busy(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(503)
        self.end_headers()

    def log_message(self, *words):
        pass


@pytest.fixture
def addresses(monkeypatch):
    """Of a hub that answers, if only that it is busy, and of one where nobody listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server = HTTPServer(("127.0.0.1", 0), _Busy)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{server.server_port}", f"http://127.0.0.1:{taken.getsockname()[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_is_tried_once_and_only_the_cache_where_nobody_answers(folder, monkeypatch, addresses):
    real, seen, log = datasets.load_dataset, [], logging.getLogger("huggingface_hub.utils._http")

    def load(name, config):
        seen.append((datasets.config.HF_HUB_OFFLINE, log.isEnabledFor(logging.WARNING)))
        return real(str(folder))

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    for address in addresses:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
        assert len(open_source("hf://owner/name", "train")) == 31
        assert datasets.config.HF_HUB_OFFLINE is False
    assert seen == [(False, False), (True, False)]
    assert log.isEnabledFor(logging.WARNING)


def test_out_of_reach_is_one_line_and_quick(monkeypatch, addresses, capfd, caplog):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", addresses[1])
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    assert "it is not in the local cache, and the hub cannot be reached" in refused("hf://owner/name")
    assert waits == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_without_the_extra_there_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "pip install 'vitlab[hub]'" in refused(folder)


def test_fingerprints_notice_labels_sizes_and_classes(tmp_path):
    seen = set()
    for number, (labels, names) in enumerate(
        [([0, 1, 1], "ab"), ([0, 1, 0], "ab"), ([0, 1, 1], "ac"), ([0, 1, 1, 1], "ab")]
    ):
        root = tmp_path / str(number)
        put(root / "train.parquet", labels, names=list(names))
        put(root / "test.parquet", [0, 1], names=list(names))
        seen.add(open_source(str(root), "train").fingerprint)
    packed = io.BytesIO()
    Image.new("L", (9, 9)).save(packed, "PNG")
    cells = [{"bytes": packed.getvalue(), "path": None}] * 3
    put(tmp_path / "5/train.parquet", [0, 1, 1], names=["a", "b"], cells=cells)
    put(tmp_path / "5/test.parquet", [0, 1], names=["a", "b"])
    seen.add(open_source(str(tmp_path / "5"), "train").fingerprint)
    assert len(seen) == 5


def test_an_unlabelled_test_split_of_a_named_set_is_not_its_test_side(tmp_path, monkeypatch):
    """ImageNet on the hub: its `test` has the label -1 everywhere; validation is what is measured on."""
    names = [f"n{number:08d}" for number in range(1000)]
    for split, labels in (("train", list(range(1000))), ("validation", [5, 6]), ("test", [-1, -1])):
        put(tmp_path / f"{split}-0.parquet", labels, names=names)
    assert open_source(f"imagenet={tmp_path}", "test").labels_N.tolist() == [5, 6]
    assert len(open_source(f"imagenet={tmp_path}", "train")) == 1000
