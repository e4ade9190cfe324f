"""Tar shards: packed and read back, against Python's own tarfile, and under damage."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.pictures import encode
from vitlab.data.folders import open_folder
from vitlab.data.sources import Sample
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.shards.indexing import index_shard, scan
from vitlab.shards.opening import open_shards
from vitlab.shards.packing import memory_reader, pack, pack_bytes, tar_bytes
from vitlab.shards.source import Shard, from_json, index_path, shard_source, to_json
from vitlab.shards.tar import walk

PICTURE = encode(Image.new("RGB", (3, 2), (9, 8, 7)))


def shard_of(*members, end=True, **options):
    """A tar of (name, bytes) or TarInfo members, written by Python."""
    packed = io.BytesIO()
    archive = tarfile.open(fileobj=packed, mode="w", **options)  # noqa: SIM115
    for member in members:
        if isinstance(member, tarfile.TarInfo):
            archive.addfile(member)
        else:
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    if end:
        archive.close()
    return packed.getvalue()


def scanned(data, classes=None):
    return scan(memory_reader(data), len(data), "s.tar", classes)


def refused(data, classes=None):
    with pytest.raises(UserError) as caught:
        scanned(data, classes)
    message = str(caught.value)
    assert message.startswith("s.tar: ")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------------- packing


@pytest.fixture
def packed(animals, tmp_path):
    for split in ("train", "test"):
        pack(open_folder(animals, split), tmp_path / "packed", split, shard_samples=5)
    return tmp_path / "packed"


def test_packing_and_reading_back_changes_nothing(animals, packed):
    for split in ("train", "test"):
        before, after = open_folder(animals, split), open_source(str(packed), split)
        assert after.classes == before.classes
        assert (after.labels_N == before.labels_N).all()
        for index in np.random.default_rng(0).permutation(len(before)).tolist():
            first, second = before.read(index), after.read(index)
            assert (first.data, first.label) == (second.data, second.label)
    assert sorted(path.name for path in packed.glob("*.tar")) == [
        *("test-00000.tar", "train-00000.tar", "train-00001.tar", "train-00002.tar", "train-00003.tar")
    ]


def test_packing_again_gives_the_same_bytes(animals, packed, tmp_path):
    for path in pack(open_folder(animals, "train"), tmp_path / "again", "train", shard_samples=5).shards:
        assert path.read_bytes() == (packed / path.name).read_bytes()
        assert index_path(path).read_bytes() == index_path(packed / path.name).read_bytes()


def test_webdatasets_layout(packed):
    with tarfile.open(packed / "train-00001.tar") as archive:
        names = archive.getnames()
        assert names[:4] == ["00000005.jpg", "00000005.cls", "00000006.jpg", "00000006.cls"]
        assert archive.extractfile("00000005.cls").read() == b"0"
    assert not (packed / "00000005.jpg").exists()


def test_a_lost_index_is_made_again_but_for_the_class_names(packed):
    shard = packed / "train-00000.tar"
    beside = index_path(shard)
    before = json.loads(beside.read_text())
    beside.unlink()
    open_shards([shard, packed / "train-00003.tar"], "x")
    after = json.loads(beside.read_text())
    assert before.pop("classes") == ["cat", "dog"]
    assert after.pop("classes") is None
    assert before == after


def test_an_index_of_another_shard_is_made_again(packed):
    shard = packed / "train-00000.tar"
    longer = pack_bytes([(f"k{i}", Sample(PICTURE, i % 2, "x")) for i in range(40)], ("a", "b"))[0]
    shard.write_bytes(longer)
    assert len(index_shard(shard).names) == 40


def test_a_shard_that_changed_behind_its_index_is_noticed(packed):
    source = open_source(str(packed), "train")
    shard = packed / "train-00000.tar"
    shard.write_bytes(b"x" * shard.stat().st_size)
    with pytest.raises(UserError, match=r"train-00000\.tar: 00000002\.jpg: the shard changed after it was indexed"):
        source.read(2)
    shard.unlink()
    with pytest.raises(UserError, match="it cannot be read"):
        source.read(2)


def test_a_read_only_folder_serves_without_an_index(packed, monkeypatch, caplog):
    shard = packed / "train-00000.tar"
    index_path(shard).unlink()

    def fail(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vitlab.shards.indexing.write_text", fail)
    assert len(index_shard(shard).names) == 5
    assert "not kept (Permission denied)" in caplog.text


def test_packing_over_shards_is_refused(animals, packed):
    with pytest.raises(UserError, match=r"already holds train-\*\.tar"):
        pack(open_folder(animals, "train"), packed, "train")


# ------------------------------------------------------------------------------------ reading foreign archives

names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FFF, categories=["L", "N"]), min_size=1, max_size=160)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=8, unique_by=lambda member: member[0]),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@example([("d/" * 70 + "x", b"1")], tarfile.USTAR_FORMAT)
def test_members_are_found_where_tarfile_finds_them(members, form):
    try:
        data = shard_of(*members, format=form)
    except ValueError:  # the name does not fit into ustar
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive]
    assert [(m.name, m.offset, m.size) for m in walk(memory_reader(data), len(data), "s.tar")] == expected
    assert [(name, data[offset : offset + size]) for name, offset, size in expected] == members


def test_foreign_shards_need_no_class_names():
    members = [("n01/a.jpg", PICTURE), ("n01/a.cls", b"3\n"), ("b.PNG", PICTURE), ("b.cls", b"0"), ("b.json", b"{}")]
    data = shard_of(*members)
    source = shard_source([Shard(Path("x.tar"), scanned(data), data)], "x")
    assert source.classes == ("0", "1", "2", "3")
    assert [source.read(index).label for index in range(2)] == [3, 0]
    assert source.read(0).data == PICTURE


def link(kind, target="/etc/passwd"):
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../a.png", PICTURE), ("../a.cls", b"0")], "member '../a.png' leads out of the archive"),
        ([("x/../../a.png", PICTURE)], "leads out of the archive"),
        ([("/etc/a.png", PICTURE)], "leads out of the archive"),
        ([("a\\b.png", PICTURE)], "leads out of the archive"),
        ([link(tarfile.SYMTYPE)], "member 'a.png' is a symbolic link"),
        ([link(tarfile.LNKTYPE)], "member 'a.png' is a hard link"),
        ([link(tarfile.FIFOTYPE)], "member 'a.png' is a pipe"),
        ([link(tarfile.CHRTYPE)], "member 'a.png' is a device"),
        ([("k/a.pkl", b"x")], "sample 'k/a' holds a pickle (.pkl)"),
        ([("a.pyd", b"x")], "sample 'a' holds a pickle (.pyd)"),
        ([("a.meta.PICKLE", b"x")], "sample 'a' holds a pickle (.meta.pickle)"),
        ([("a.png", PICTURE)], "sample 'a' has no label (.cls)"),
        ([("a.cls", b"1")], "sample 'a' has no image"),
        ([("a.png", PICTURE), ("a.jpg", PICTURE), ("a.cls", b"1")], "sample 'a' has two images"),
        ([("a.png", PICTURE), ("a.cls", b"1"), ("a.cls", b"1")], "sample 'a' has two labels"),
        ([("a.png", b""), ("a.cls", b"1")], "sample 'a' has an image of 0 bytes"),
        ([("a.png", PICTURE), ("a.cls", b"-1")], "sample 'a' has the label '-1'"),
        ([("a.png", PICTURE), ("a.cls", b"nan")], "sample 'a' has the label 'nan'"),
        ([("a.png", PICTURE), ("a.cls", b"cat")], "sample 'a' has the label 'cat'"),
        ([("a.png", PICTURE), ("a.cls", b"")], "sample 'a' has the label ''"),
        ([("a.png", PICTURE), ("a.cls", b"9" * 40)], "sample 'a' has the label '9999"),
        ([("a.txt", b"x")], "there are no samples"),
        ([], "there are no samples"),
    ],
)
def test_what_does_not_belong_into_a_shard_is_named(members, message):
    assert message in refused(shard_of(*members))


def test_a_label_beyond_the_classes_is_named():
    data = shard_of(("a.png", PICTURE), ("a.cls", b"2"))
    assert "sample 'a' has the label '2'; give a class's number, 0 to 1" in refused(data, ("x", "y"))
    with pytest.raises(UserError, match="its label 2 is not one of the 2 training classes"):
        shard_source([Shard(Path("s.tar"), scanned(data), data)], "x", classes=("x", "y"))


def test_a_cut_short_shard_is_refused_wherever_it_is_cut():
    data = tar_bytes([(f"{i}.{kind}", body) for i in range(3) for kind, body in (("png", PICTURE), ("cls", b"1"))])
    content = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for length in range(0, content + 1, 37):
        assert "cut short" in refused(data[:length])
    assert "cut short" in refused(shard_of(("a.png", PICTURE), ("a.cls", b"1"), end=False))
    assert "member '0.png' ends at byte" in refused(data[:520])


@pytest.mark.parametrize("cut", range(1, 6 * 1024, 300))
def test_skipping_keeps_the_whole_samples_before_the_cut(tmp_path, cut):
    """Six samples of two blocks and two headers each; a sample is whole if both of its members are."""
    picture = PICTURE.ljust(512, b"\0")
    members = [(f"{i}.{kind}", body) for i in range(6) for kind, body in (("png", picture), ("cls", b"%d" % (i % 2)))]
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes(members)[: 6 * 1024 + cut])
    with pytest.raises(UserError, match=r"s\.tar: it is cut short"):
        open_shards([path], "x")
    assert not index_path(path).exists()
    source = open_shards([path], "x", bad="skip")
    whole = 3 + (cut - 512 - 512 - 512 - 1) // 2048 + 1 if cut >= 1537 else 3
    assert len(source) == whole
    assert [source.read(index).label for index in range(whole)] == [index % 2 for index in range(whole)]
    assert "it is cut short" in source.skipped[0]
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in source.skipped)
    assert not index_path(path).exists()  # nobody takes this index for the whole shard's


def test_skipping_leaves_out_incomplete_samples_and_tells(tmp_path):
    members = [
        ("a.png", PICTURE),
        ("a.cls", b"0"),
        ("b.png", PICTURE),
        ("c.cls", b"1"),
        ("d.png", b""),
        ("d.cls", b"1"),
    ]
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes([*members, ("e.png", PICTURE), ("e.cls", b"1")]))
    source = open_shards([path], "x", bad="skip")
    assert [source.key(index) for index in range(len(source))] == ["s.tar/a.png", "s.tar/e.png"]
    reasons = sorted(line.removeprefix(f"{path}: ") for line in source.skipped)
    for reason, start in zip(
        reasons,
        (
            "sample 'b' has no label (.cls)",
            "sample 'c' has no image",
            "sample 'd' has an image of 0 bytes",
        ),
        strict=True,
    ):
        assert reason.startswith(start)


@pytest.mark.parametrize("suffix", ["pkl", "pyd"])
def test_skipping_never_takes_what_is_dangerous_or_mislabelled(tmp_path, suffix):
    for wrong in ([(f"b.{suffix}", b"x")], [("../b.png", PICTURE)], [("b.png", PICTURE), ("b.cls", b"cat")]):
        path = tmp_path / "s.tar"
        path.write_bytes(tar_bytes([("a.png", PICTURE), ("a.cls", b"0"), *wrong]))
        with pytest.raises(UserError, match=r"^.*s\.tar: "):
            open_shards([path], "x", bad="skip")


def test_a_name_without_end_is_refused():
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert "an extended header of" in refused(shard_of(("x" * 70_000, b""), format=form))


def test_a_second_archive_behind_the_first_is_not_lost_silently():
    data = tar_bytes([("a.png", PICTURE), ("a.cls", b"1")])
    assert "more data after its end mark" in refused(data + data)


def test_no_archive_at_all():
    assert "damaged" in refused(b"<html>" + bytes(1000))
    assert "cut short" in refused(b"")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_damage_gives_an_index_or_a_refusal(form):
    long_name = "folder/" * 14 + "ü"
    data = shard_of(
        *[(f"{stem}.{kind}", body) for stem in ("a", long_name) for kind, body in (("png", PICTURE), ("cls", b"1"))],
        format=form,
    )

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=4),
        st.booleans(),
        st.none() | st.integers(0, len(data)),
    )
    def damaged(changes, mend_checksums, cut):
        broken = bytearray(data)
        for position, value in changes:
            broken[position] = value
        if mend_checksums:
            mend(broken)
        try:
            index = scanned(bytes(broken[:cut]))
        except UserError as error:
            assert str(error).startswith("s.tar: ")
            assert "\n" not in str(error)
        else:
            assert from_json(to_json(index).encode(), "x") == index

    damaged()


def mend(archive):
    """Gives every block that looks like a header its right checksum, so that damage gets past it."""
    for start in range(0, len(archive) - 511, 512):
        if archive[start + 257 : start + 262] == b"ustar":
            archive[start + 148 : start + 156] = b" " * 8
            archive[start + 148 : start + 155] = b"%06o\0" % sum(archive[start : start + 512])


def test_a_header_with_a_size_below_zero_does_not_loop():
    data = bytearray(tar_bytes([("a.png", PICTURE), ("a.cls", b"1")]))
    data[124:136] = b"\xff" * 12
    mend(data)
    assert "damaged" in refused(bytes(data))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "other"},
        {"names": ["a.png"]},
        {"offsets": [512, -1]},
        {"offsets": [512, 10**9]},
        {"sizes": [0, 1]},
        {"labels": [0, 2]},
        {"labels": [0, -1]},
        {"labels": [0, "1"]},
        {"extra": 1},
        {"names": [], "offsets": [], "sizes": [], "labels": []},
        {"shard_bytes": 0},
    ],
)
def test_an_index_that_contradicts_itself_is_refused(change):
    _, index = pack_bytes([("a", Sample(PICTURE, 0, "x")), ("b", Sample(PICTURE, 1, "x"))], ("x", "y"))
    honest = json.loads(to_json(index))
    assert from_json(json.dumps(honest).encode(), "i.json") == index
    with pytest.raises(UserError, match=r"^i\.json: .*it is made again$"):
        from_json(json.dumps(honest | change).encode(), "i.json")


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | st.just(b"[" * 100_000))
def test_noise_is_no_index(noise):
    with pytest.raises(UserError, match=r"^i\.json: "):
        from_json(noise, "i.json")
