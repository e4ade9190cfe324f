"""Files that are not what they should be: one line that says what it is, what was expected, what to do."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vitlab.errors import UserError
from vitlab.weights import load_model, save_model
from weights.helpers import golden_arrays, golden_cases, save_npz, tiny
from weights.test_flax_layouts import scanned

CASES = golden_cases()


def refused(source, **loading):
    with pytest.raises(UserError) as caught:
        load_model(source, **loading)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


# Pickles. Each would write a file if it were executed.


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def torch_zip(path, pickled, storages=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/byteorder", b"little")
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["bare", "torch", "model", "state", "sidecar"])
def test_pickled_code_is_named_and_never_run(place, protocol, tmp_path):
    canary = tmp_path / "canary"
    value = {"model": Payload(canary)} if place == "model" else Payload(canary)
    data = pickle.dumps(value, protocol)
    if place == "bare":
        source = tmp_path / "x"
        source.write_bytes(data)
    elif place == "sidecar":
        save_model(tiny(), tmp_path / "m", format="transformers")
        (tmp_path / "m" / "model.safetensors").unlink()
        torch_zip(tmp_path / "m" / "pytorch_model.bin", data)
        source = tmp_path / "m"
    else:
        source = torch_zip(tmp_path / "x", data)
    message = refused(source)
    if place != "bare" or protocol > 1:
        assert "posix.system" in message or "nt.system" in message
        assert "vitlab executes none" in message
    assert not canary.exists()


def test_code_behind_a_state_is_named(tmp_path):
    """BUILD calls __setstate__; a Namespace and an OrderedDict are let in, what they hold is not made."""
    data = pickle.dumps({"model": {"x": torch.nn.Linear}}, 2)
    assert "torch.nn.modules.linear.Linear" in refused(torch_zip(tmp_path / "x", data))


def test_a_whole_module_is_told_how_to_be_saved(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x")
    message = refused(tmp_path / "x")
    assert "torch.nn.modules.linear.Linear" in message
    assert "save the state_dict alone" in message


def test_files_of_torch_before_1_6_are_told_so(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "x", _use_new_zipfile_serialization=False)
    assert "torch.save of PyTorch 1.6 or newer" in refused(tmp_path / "x")


def test_object_arrays_are_refused_and_never_unpickled(tmp_path):
    canary = tmp_path / "canary"
    arrays = golden_arrays(CASES["ViT-tiny-test_8"]) | {"cls": np.array([Payload(canary)], dtype=object)}
    message = refused(save_npz(tmp_path / "x", arrays))
    assert "'cls' holds Python objects (pickle), which are never read" in message
    assert not canary.exists()


def test_texts_and_whole_numbers_are_refused(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    for kind in (np.int64, np.complex64, "U3", "M8[s]", "V8"):
        wrong = arrays | {"cls": np.zeros((1, 1, 32)).astype(np.int64).astype(kind)}
        assert "1 arrays ('cls') hold" in refused(save_npz(tmp_path / "x", wrong))


# Bombs.


def deflated_zeros(path, shape, name):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            left = 4 * int(np.prod(shape))
            while left:
                left -= member.write(bytes(min(left, 2**24)))


def test_an_npz_bomb_is_refused_by_its_declared_size(tmp_path):
    source = save_npz(tmp_path / "x", golden_arrays(CASES["ViT-tiny-test_8"]))
    deflated_zeros(source, (2**26,), "Transformer/extra")
    message = refused(source)
    assert "taken for a compression bomb" in message
    assert "268530996" in message or "2685" in message


def test_a_bomb_that_looks_like_a_model_is_refused_too(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    del arrays["head/kernel"], arrays["head/bias"]
    source = save_npz(tmp_path / "x", arrays)
    deflated_zeros(source, (32, 2**20), "head/kernel")
    deflated_zeros(source, (2**20,), "head/bias")
    assert "taken for a compression bomb" in refused(source)


def test_a_header_that_lies_about_its_array_is_refused(tmp_path):
    for declared in ((10**9,), (3,), (2**62, 2**62)):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": declared})
        with zipfile.ZipFile(tmp_path / "x", "w") as archive:
            archive.writestr("cls.npy", header.getvalue() + bytes(16))
        assert "'cls' declares" in refused(tmp_path / "x")


def test_compressed_torch_files_are_refused(tmp_path):
    torch.save(tiny().state_dict(), tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain:
        with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in plain.namelist():
                archive.writestr(name, plain.read(name))
    assert "is compressed, which torch.save never does" in refused(tmp_path / "x")


def test_views_that_unfold_a_small_storage_are_refused(tmp_path):
    torch.save({"head.weight": torch.zeros(1).expand(2**14, 2**14)}, tmp_path / "x")
    assert "taken for a compression bomb" in refused(tmp_path / "x")


def rewritten(path, change):
    """A torch file with other bytes in its pickle, of the same length."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


LIES = [
    pytest.param(b"K\x07", b"K\x7f", "declares 127 numbers", id="more numbers than the storage has"),
    pytest.param(b"QK\x00", b"QK\x05", "declares 7 numbers", id="starts too late"),
    pytest.param(b"\x85q\x08K\x01", b"\x85q\x08K\x09", "declares 7 numbers", id="steps too far"),
    pytest.param(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001", "has no numbers in the file", id="no storage"),
]


@pytest.mark.parametrize(("old", "new", "expected"), LIES)
def test_a_tensor_outside_its_storage_is_refused(old, new, expected, tmp_path):
    torch.save({"x": torch.zeros(7)}, tmp_path / "x")

    def change(data):
        assert old in data, data
        return data.replace(old, new)

    rewritten(tmp_path / "x", change)
    message = refused(tmp_path / "x")
    assert expected in message
    assert "get the file again" in message or "get it again" in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("a.npy", b"1")
        archive.writestr("a.npy", b"2")
    assert "holds entry 'a.npy' twice" in refused(tmp_path / "x")


def test_a_safetensors_header_of_gigabytes_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(struct.pack("<Q", 2**32) + b"{" + bytes(100))
    assert "header claims 4294967296 bytes" in refused(tmp_path / "x")


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from vitlab.errors import UserError
from vitlab.models import create_model
from vitlab.weights import load_model, save_model

folder, source, allowed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
save_model(create_model("ViT-Ti/16", layers=1, image_size=32, num_classes=1), folder / "warm")
load_model(folder / "warm")
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + allowed, used + allowed))
try:
    load_model(source)
    print("loaded")
except UserError as error:
    print("refused:", error)
"""


def under_limit(tmp_path, source, allowed):
    """Load in a process that may not allocate more than `allowed` bytes, touched or not."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), str(source), str(allowed)],
        env=dict(os.environ, OMP_NUM_THREADS="1", MALLOC_ARENA_MAX="1"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-600:]
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["vitlab", "flax", "scan", "torch"])
def test_no_more_than_twice_the_models_size_is_allocated(kind, tmp_path):
    model = tiny(hidden=512, heads=8, layers=8, mlp=2048, num_classes=5)
    source = tmp_path / "x"
    if kind == "torch":
        torch.save({"model": model.state_dict()}, source)
    elif kind == "scan":
        save_model(model, source, format="flax")
        with np.load(source) as file:
            arrays = scanned(dict(file))
        save_npz(source, arrays)
    else:
        save_model(model, source, format=kind)
    size = sum(array.numel() * 4 for array in model.state_dict().values())
    assert size > 90 * 2**20
    largest = max(array.numel() * 4 for array in model.state_dict().values())
    assert "loaded" in under_limit(tmp_path, source, 2 * size + 2 * largest)


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_bombs_are_refused_before_they_unfold(tmp_path):
    source = save_npz(tmp_path / "npz", golden_arrays(CASES["ViT-tiny-test_8"]))
    deflated_zeros(source, (2**27,), "Transformer/extra")
    torch.save({"head.weight": torch.zeros(1).expand(2**15, 2**15)}, tmp_path / "torch")
    for bomb in (source, tmp_path / "torch"):
        assert "refused:" in under_limit(tmp_path, bomb, 64 * 2**20)


# Damage and confusion.


def write_all(folder):
    """One whole file of every kind."""
    model = tiny(layers=1, mlp=16)
    save_model(model, folder / "native")
    save_model(model, folder / "npz", format="flax")
    torch.save(model.state_dict(), folder / "pt")
    return {
        "safetensors": folder / "native" / "model.safetensors",
        "npz": folder / "npz",
        "pt": folder / "pt",
    }


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_truncated_files_are_refused_at_any_length(kind, tmp_path):
    whole = write_all(tmp_path)[kind].read_bytes()
    cuts = {0, 1, 7, 8, 9, 30, 64, 200, len(whole) // 2, len(whole) - 200, len(whole) - 30, len(whole) - 1}
    for cut in sorted(cuts):
        (tmp_path / "cut").write_bytes(whole[:cut])
        message = refused(tmp_path / "cut")
        assert "get it again" in message or "not a weights file" in message or "damaged" in message


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
@pytest.mark.parametrize("ending", [".pt", ".npz", ".safetensors", ".onnx", ".jpg", ""])
def test_a_name_says_nothing(kind, ending, tmp_path):
    file = write_all(tmp_path)[kind]
    (tmp_path / "other").mkdir()
    renamed = file.rename(tmp_path / "other" / f"weights{ending}")
    assert load_model(renamed).config.hidden == 128


OTHERS = {
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "an empty file": (b"", "is empty"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a weights file"),
    "a page": (b"<!DOCTYPE html><html>Not found</html>", "not a weights file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "not a weights file"),
    "an empty zip": (b"PK\x05\x06" + bytes(18), "not a weights file"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_told_what_is_known(kind, tmp_path):
    data, expected = OTHERS[kind]
    (tmp_path / "model.safetensors").write_bytes(data)
    assert expected in refused(tmp_path / "model.safetensors")


def test_a_zip_of_other_things(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("holiday.jpg", b"\xff\xd8" * 40)
    assert "damaged npz archive" in refused(tmp_path / "x")


def test_weights_of_another_architecture_are_told_so(tmp_path):
    resnet = {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}
    save_file(resnet, tmp_path / "x")
    message = refused(tmp_path / "x")
    assert "2 arrays, such as 'conv1.weight', 'layer1.0.conv1.weight'" in message
    assert "none of the models vitlab knows" in message


def test_a_folder_with_the_config_of_another_model_is_told_so(tmp_path):
    save_model(tiny(), tmp_path / "small")
    save_model(tiny(hidden=192, heads=3), tmp_path / "large")
    (tmp_path / "large" / "config.json").replace(tmp_path / "small" / "config.json")
    message = refused(tmp_path / "small")
    assert "taken for vitlab folder and a ViT of 2 layers, width 192" in message
    assert "misshaped" in message


def test_another_grid_in_the_config_is_told_so(tmp_path):
    save_model(tiny(), tmp_path / "m")
    place = tmp_path / "m" / "config.json"
    place.write_text(place.read_text().replace('"image_size": 32', '"image_size": 48'))
    assert "pos_embed: (1, 17, 128) where (1, 37, 128) was expected" in refused(tmp_path / "m")


def test_names_that_would_break_the_line_are_made_harmless(tmp_path):
    arrays = load_file(write_all(tmp_path)["safetensors"])
    arrays["evil\n\x1b[31mname" + "x" * 200] = torch.zeros(1)
    save_file(arrays, tmp_path / "native" / "model.safetensors")
    message = refused(tmp_path / "native")
    assert "evil??[31mname" in message
    assert "\x1b" not in message


def test_more_layers_than_any_model_has(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    far = {name.replace("encoderblock_1", "encoderblock_999999999"): array for name, array in arrays.items()}
    assert "unexpected" in refused(save_npz(tmp_path / "x", far))
    stacked = {"Transformer/encoderblock/LayerNorm_0/scale": np.zeros((10**9, 0), np.float32), "cls": arrays["cls"]}
    refused(save_npz(tmp_path / "y", stacked))
