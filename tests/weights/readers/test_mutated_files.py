"""Laws over damaged files: a UserError of one line or a whole model, no code run, no memory beyond the model's."""

import io
import json
import os
import pickle
import sys
import zipfile

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vitlab.errors import UserError
from vitlab.weights import load_model, save_model
from weights.helpers import tiny

LAWS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
MOST_GROWTH_BYTES = 96 * 2**20


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def peak_memory():
    """The most memory this process ever had, in bytes; 0 where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def obey(source, folder):
    """The law."""
    before = peak_memory()
    try:
        model = load_model(source)
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1500
    else:
        assert all(torch.isfinite(array).all() for array in model.state_dict().values())
    assert peak_memory() - before < MOST_GROWTH_BYTES
    assert not (folder / "canary").exists()


@st.composite
def mutations(draw):
    """A few changes of bytes, most of them near the start or the end, where headers are."""
    place = st.one_of(
        st.integers(0, 2000),
        st.integers(-2000, -1),
        st.floats(0, 1, exclude_max=True).map(lambda share: ("share", share)),
    )
    change = st.one_of(
        st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just("flip"), place, st.integers(0, 7)),
        st.tuples(st.just("cut"), place, st.integers(1, 300)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=30)),
        st.tuples(st.just("end"), place, st.none()),
    )
    return draw(st.lists(change, min_size=1, max_size=4))


def mutated(data, changes):
    data = bytearray(data)
    for kind, place, value in changes:
        if not data:
            break
        position = int(place[1] * len(data)) if isinstance(place, tuple) else place % len(data)
        if kind == "set":
            data[position : position + len(value)] = value
        elif kind == "flip":
            data[position] ^= 1 << value
        elif kind == "cut":
            del data[position : position + value]
        elif kind == "insert":
            data[position:position] = value
        else:
            del data[position:]
    return bytes(data)


@pytest.fixture(scope="module")
def small():
    return tiny(hidden=64, heads=1, layers=1, mlp=8, image_size=16, num_classes=2, gelu="erf")


@pytest.fixture(scope="module")
def originals(small, tmp_path_factory):
    """Small whole files of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    save_model(small, folder / "native")
    flax = tiny(hidden=64, heads=1, layers=1, mlp=8, image_size=16, num_classes=2)
    save_model(flax, folder / "npz", format="flax")
    with np.load(folder / "npz") as arrays:
        deflated = io.BytesIO()
        np.savez_compressed(deflated, **arrays)
    torch.save({"model": small.state_dict(), "epoch": 3}, folder / "pt")
    graph = onnx.helper.make_graph(
        [],
        "g",
        [],
        [],
        [onnx.numpy_helper.from_array(array.numpy(), name) for name, array in small.state_dict().items()],
    )
    return {
        "safetensors": (folder / "native" / "model.safetensors").read_bytes(),
        "npz": (folder / "npz").read_bytes(),
        "deflated npz": deflated.getvalue(),
        "pt": (folder / "pt").read_bytes(),
        "onnx": onnx.helper.make_model(graph).SerializeToString(),
    }


KINDS = ["safetensors", "npz", "deflated npz", "pt", "onnx"]


@pytest.mark.parametrize("kind", KINDS)
def test_unharmed_they_load(kind, originals, tmp_path):
    (tmp_path / "x").write_bytes(originals[kind])
    assert load_model(tmp_path / "x").config.hidden == 64


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_bytes(kind, originals, tmp_path):
    @LAWS
    @given(mutations())
    def law(changes):
        (tmp_path / "x").write_bytes(mutated(originals[kind], changes))
        obey(tmp_path / "x", tmp_path)

    law()


def rezipped(data, name_ends, change):
    """The zip with one kind of entry changed, and its checksum right again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as changed:
        for entry in archive.infolist():
            member = archive.read(entry)
            changed.writestr(entry.filename, change(member) if entry.filename.endswith(name_ends) else member)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "member"), [("pt", "data.pkl"), ("npz", "cls.npy"), ("npz", "head/kernel.npy")])
def test_mutated_members_with_a_right_checksum(kind, member, originals, tmp_path):
    """The zip's own checksum stops most changes; an attacker computes it anew."""

    @LAWS
    @given(mutations())
    def law(changes):
        data = rezipped(originals[kind], member, lambda inner: mutated(inner, changes))
        (tmp_path / "x").write_bytes(data)
        obey(tmp_path / "x", tmp_path)

    law()


PICKLE_OPCODES = [
    bytes([code]) for code in b"()*.012BCDFGIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x82\x83\x85\x86\x87\x88\x89"
]


def test_random_pickles_in_a_torch_file(originals, tmp_path):
    """Instructions thrown together, with a payload's own among them: refused or read, never followed."""
    payload = pickle.dumps(Payload(tmp_path / "canary"), 2)
    with zipfile.ZipFile(io.BytesIO(originals["pt"])) as archive:
        whole = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    pieces = st.one_of(
        st.sampled_from(PICKLE_OPCODES),
        st.just(payload[2:-1]),
        st.integers(0, len(whole) - 40).map(lambda start: whole[start : start + 40]),
        st.binary(max_size=6),
    )

    @LAWS
    @given(st.lists(pieces, max_size=30))
    def law(parts):
        data = rezipped(originals["pt"], "data.pkl", lambda _: b"\x80\x02" + b"".join(parts) + b".")
        (tmp_path / "x").write_bytes(data)
        obey(tmp_path / "x", tmp_path)

    law()


def test_bytes_thrown_together_behind_every_known_start(tmp_path):
    starts = [b"PK\x03\x04", b"\x80\x02", b"\x08\x00\x00\x00\x00\x00\x00\x00{", b"\x08\x07\x12\x07pytorch", b"", b"{"]

    @LAWS
    @given(st.sampled_from(starts), st.binary(max_size=300))
    def law(start, rest):
        (tmp_path / "x").write_bytes(start + rest)
        obey(tmp_path / "x", tmp_path)

    law()


def values(depth=2):
    """Whatever JSON can say."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**12), 10**12),
        st.sampled_from([10**400, 8, 16, 64, 2]),
        st.floats(allow_nan=False),
        st.text(max_size=8),
        st.sampled_from(["token", "gap", "learned", "sincos2d", "relative", "every_layer", "erf", "gelu", "vit"]),
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
        max_leaves=6,
    )


@pytest.mark.parametrize("format", ["vitlab", "timm", "transformers"])
def test_mutated_settings(format, small, tmp_path):
    save_model(small, tmp_path / "m", format=format)
    place = tmp_path / "m" / "config.json"
    whole = json.loads(place.read_text())
    nested = [key for key, value in whole.items() if isinstance(value, dict)]
    paths = [(key,) for key in whole] + [(key, inner) for key in nested for inner in whole[key]]

    @LAWS
    @given(st.lists(st.tuples(st.sampled_from(paths), values()), min_size=1, max_size=3))
    def law(changes):
        told = json.loads(json.dumps(whole))
        for path, value in changes:
            holder = told
            for key in path[:-1]:
                holder = holder.get(key) if isinstance(holder.get(key), dict) else {}
            holder[path[-1]] = value
        place.write_text(json.dumps(told))
        obey(tmp_path / "m", tmp_path)

    law()


def test_mutated_shapes(small, tmp_path):
    """Whole safetensors files whose arrays have other shapes and names."""
    state = {name: array.numpy() for name, array in small.state_dict().items()}
    names = sorted(state)
    shapes = st.lists(st.integers(0, 9), max_size=5).map(tuple)
    change = st.tuples(st.sampled_from(names), st.one_of(shapes, st.sampled_from(names), st.none()))

    @LAWS
    @given(st.lists(change, min_size=1, max_size=3))
    def law(changes):
        arrays = dict(state)
        for name, value in changes:
            if value is None:
                arrays.pop(name, None)
            elif isinstance(value, str):
                arrays[value] = arrays.get(name, state[name])
            else:
                arrays[name] = np.zeros(value, np.float32)
        with (tmp_path / "x").open("wb") as file:
            np.savez(file, **arrays)
        obey(tmp_path / "x", tmp_path)

    law()
