"""Faults 1 to 14: what is wrong with images and data sets, as a person meets it on the command line.

Refused: exit code 2, one line on stderr that names the file, no run directory. Left out (`--bad-images skip`): exit
code 0, counted, and nothing put in its place.
"""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from vitlab.cli.main import main

TINY = [
    *("--set", "model.options.hidden=16", "--set", "model.options.layers=1", "--set", "model.options.heads=2"),
    *("--set", "model.options.mlp=16", "--set", "model.image_size=32", "--set", "batch_size=4", "--steps", "5"),
    *("--set", "schedule.warmup_steps=0", "--set", "data.workers=0", "--device", "cpu"),
]


def encode(image, image_format="JPEG", **options):
    packed = io.BytesIO()
    image.save(packed, image_format, **options)
    return packed.getvalue()


@pytest.fixture
def photos(tmp_path):
    """train/ and val/ with two classes of real photo pieces, 8 and 3 a class."""
    photo = Image.fromarray(sklearn.datasets.load_sample_image("flower.jpg"))
    root = tmp_path / "photos"
    for side, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(("petal", "leaf")):
            folder = root / side / name
            folder.mkdir(parents=True)
            for number in range(count):
                left, top = 200 * label + 3 * number, 10 * number
                (folder / f"{number}.jpg").write_bytes(encode(photo.crop((left, top, left + 60, top + 50))))
    return root


def train(capfd, tmp_path, data, *more):
    """(exit code, stdout, stderr) of a short training run."""
    capfd.readouterr()
    code = main(["pretrain", "scratch", "--data", str(data), "--out", str(tmp_path / "run"), *TINY, *more])
    printed = capfd.readouterr()
    return code, printed.out, printed.err


def refused(capfd, tmp_path, data, *more):
    """The one line; there is nothing else, and no run."""
    code, out, err = train(capfd, tmp_path, data, *more)
    assert code == 2, err
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("vitlab: ")]
    assert err == lines[0] + "\n" if len(lines) == 1 else False, err
    assert not (tmp_path / "run").exists()
    return lines[0]


def skipped(capfd, tmp_path, data):
    """How many images a run with --bad-images skip left out while it trained, by its own numbers; what it said."""
    code, _, err = train(capfd, tmp_path, data, "--bad-images", "skip", "--set", "log_every=1")
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    return max(line.get("skipped_images", 0) for line in lines), err


def spoil_and_check(capfd, tmp_path, photos, spoil, at_the_start=False):
    """Fault 1's law for one spoiled training image: refused by name; or left out, once an epoch or from the start."""
    path = photos / "train" / "leaf" / "5.jpg"
    spoil(path)
    assert str(path) in refused(capfd, tmp_path, photos)
    # 5 steps of 4 images are one epoch of 16 and a quarter of the next.
    count, told = skipped(capfd, tmp_path, photos)
    told = [line for line in told.splitlines() if line.startswith("left out")]
    assert len(told) == 1
    assert str(path) in told[0]
    assert count in ((0,) if at_the_start else (1, 2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_1_a_truncated_image(capfd, tmp_path, photos, share):
    def cut(path):
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])

    spoil_and_check(capfd, tmp_path, photos, cut)


@pytest.mark.parametrize("content", [b"", b"not an image", b"<html>404</html>"])
def test_2_an_empty_file_or_no_image(capfd, tmp_path, photos, content):
    spoil_and_check(capfd, tmp_path, photos, lambda path: path.write_bytes(content), at_the_start=not content)


def test_3_unusual_colours_are_converted_and_told_once(tmp_path, photos):
    """The pixels are in tests/data/test_images.py; here they train. In a process of its own, which has told nothing."""
    for number in range(4):
        path = photos / "train" / "leaf" / f"{number}.jpg"
        path.write_bytes(encode(Image.open(path).convert("CMYK")))
    words = ["pretrain", "scratch", "--data", str(photos), "--out", str(tmp_path / "run"), *TINY]
    ran = subprocess.run([sys.executable, "-m", "vitlab", *words], capture_output=True, text=True, check=True)
    assert ran.stderr.count("CMYK is converted to RGB") == 1


def test_4_sixteen_bit_images_train(capfd, tmp_path, photos):
    ramp = np.linspace(0, 65535, 60 * 50, dtype=np.uint16).reshape(50, 60)
    (photos / "train" / "leaf" / "0.png").write_bytes(encode(Image.fromarray(ramp), "PNG"))
    assert train(capfd, tmp_path, photos)[0] == 0


def test_5_orientation_is_the_same_in_training_and_prediction(capfd, tmp_path, photos):
    """An image stored sideways with its EXIF mark is predicted as its upright copy."""
    assert train(capfd, tmp_path, photos)[0] == 0
    upright = Image.open(photos / "val" / "leaf" / "0.jpg").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "upright.png").write_bytes(encode(upright, "PNG"))
    (tmp_path / "turned.png").write_bytes(encode(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif))
    capfd.readouterr()
    assert main(["predict", str(tmp_path / "run"), *(str(tmp_path / f"{n}.png") for n in ("upright", "turned"))]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if ".png" in line]
    first, second = (row.split("│")[2:] for row in rows)
    assert first == second


def test_6_a_pixel_bomb_is_refused_before_decoding(capfd, tmp_path, photos):
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(10**6), 9)
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, body, b"IEND")
    ]
    path = photos / "train" / "leaf" / "5.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    line = refused(capfd, tmp_path, photos)
    assert str(path) in line
    assert "pixels" in line


def test_7_an_empty_class_folder_shifts_no_label(capfd, caplog, tmp_path, photos):
    """The folder sorts first; the classes are those that have training images, in training and in evaluation."""
    (photos / "train" / "aardvark").mkdir()
    (photos / "val" / "aardvark").mkdir()
    assert train(capfd, tmp_path, photos)[0] == 0
    assert "no image in it: aardvark" in caplog.text
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config["classes"] == ["leaf", "petal"]


def test_8_a_test_class_that_training_lacks(capfd, tmp_path, photos):
    shutil.copytree(photos / "val" / "leaf", photos / "val" / "thorn")
    line = refused(capfd, tmp_path, photos)
    assert "'thorn'" in line
    assert str(photos / "val") in line


def test_9_a_single_class_or_fewer_images_than_a_batch(capfd, tmp_path, photos):
    line = refused(capfd, tmp_path, photos, "--set", "batch_size=64")
    assert "16 images are fewer than a batch of 64" in line
    for side in ("train", "val"):
        shutil.rmtree(photos / side / "leaf")
    assert "only the class 'petal'" in refused(capfd, tmp_path, photos)


def shard(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def shards(photos, folder, change=lambda members: members):
    """The photos as two shards; `change` spoils the training one's members."""
    folder.mkdir(exist_ok=True)
    for side in ("train", "val"):
        files = sorted((photos / side).rglob("*.jpg"))
        members = [
            member
            for number, path in enumerate(files)
            for member in (
                (f"{number}.jpg", path.read_bytes()),
                (f"{number}.cls", b"%d" % (path.parent.name == "leaf")),
            )
        ]
        shard(folder / f"{side}-000.tar", change(members) if side == "train" else members)
    return folder


@pytest.mark.parametrize("label", [b"-1", b"nan", b"cat", b"1.5", b"99999999", b""])
def test_10_a_label_that_is_no_class(capfd, tmp_path, photos, label):
    folder = shards(photos, tmp_path / "shards", lambda m: [(n, label if n == "3.cls" else d) for n, d in m])
    line = refused(capfd, tmp_path, folder)
    assert "train-000.tar" in line
    assert "'3'" in line


def test_11_a_truncated_tar_or_an_incomplete_sample(capfd, tmp_path, photos):
    folder = shards(photos, tmp_path / "shards", lambda members: [m for m in members if m[0] != "3.cls"])
    assert "sample '3' has no label" in refused(capfd, tmp_path, folder)
    path = shards(photos, tmp_path / "cut") / "train-000.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    line = refused(capfd, tmp_path, tmp_path / "cut")
    assert str(path) in line
    assert "cut short" in line
    code, out, err = train(capfd, tmp_path, tmp_path / "cut", "--bad-images", "skip")
    assert code == 0, err
    assert "train-000.tar" in out + err  # it is told what is missing


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/outside.jpg", "payload.pkl", "module.pyd"])
def test_12_hostile_members(capfd, tmp_path, photos, name):
    folder = shards(photos, tmp_path / "shards", lambda members: [*members, (name, b"x")])
    assert "do not trust" in refused(capfd, tmp_path, folder)
    assert "do not trust" in refused(capfd, tmp_path, folder, "--bad-images", "skip")  # no damage, but an attack


def test_12_links_and_commands(capfd, tmp_path, photos):
    folder = shards(photos, tmp_path / "shards")
    with tarfile.open(folder / "train-000.tar", "a") as archive:
        info = tarfile.TarInfo("99.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert "link" in refused(capfd, tmp_path, folder)
    marker = tmp_path / "ran"
    assert "never run" in refused(capfd, tmp_path, f"pipe:touch {marker}")
    assert not marker.exists()


def test_13_a_file_that_cannot_be_read(capfd, tmp_path, photos):
    def link_to_nowhere(path):
        path.unlink()
        path.symlink_to(tmp_path / "nowhere.jpg")

    spoil_and_check(capfd, tmp_path, photos, link_to_nowhere, at_the_start=True)


def test_13_a_loop_of_links(capfd, tmp_path, photos):
    (photos / "train" / "leaf" / "again").symlink_to(photos / "train", target_is_directory=True)
    assert "leads back to a folder above" in refused(capfd, tmp_path, photos)


def test_13_a_file_that_vanishes_meanwhile(capfd, tmp_path, photos, monkeypatch):
    """Removed after the folder was listed, before it is read."""
    path = photos / "train" / "leaf" / "5.jpg"
    listed = Path.open

    def vanishing(self, *args, **options):
        if self == path and path.exists():
            os.unlink(path)  # noqa: PTH108
        return listed(self, *args, **options)

    monkeypatch.setattr(Path, "open", vanishing)
    line = refused(capfd, tmp_path, photos)
    assert str(path) in line
    path.write_bytes((photos / "train" / "leaf" / "4.jpg").read_bytes())
    count, told = skipped(capfd, tmp_path, photos)
    assert count in (1, 2)
    assert str(path) in told


def parquet(path, rows):
    """Parquet with the columns that are given."""
    pyarrow, files = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.table(rows), path)


def test_14_tables_that_do_not_fit(capfd, tmp_path, photos):
    data = [path.read_bytes() for path in sorted((photos / "train").rglob("*.jpg"))]
    images = [{"bytes": one, "path": None} for one in data]
    parquet(tmp_path / "lacking" / "train.parquet", {"picture": [1.0] * 16, "label": [0, 1] * 8})
    line = refused(capfd, tmp_path, tmp_path / "lacking")
    assert "picture" in line  # the columns that there are
    parquet(tmp_path / "wrong" / "train.parquet", {"image": images, "label": [0.5] * 16})
    parquet(tmp_path / "wrong" / "test.parquet", {"image": images, "label": [0.5] * 16})
    assert "label" in refused(capfd, tmp_path, tmp_path / "wrong")
    script = tmp_path / "scripted"
    script.mkdir()
    (script / "scripted.py").write_text("raise SystemExit('ran')")
    assert str(script) in refused(capfd, tmp_path, script)
