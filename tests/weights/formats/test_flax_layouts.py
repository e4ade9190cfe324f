"""Every layout in which Flax ViTs and BiT come: each must give the model that the original layout gives."""

import dataclasses
import logging
import re

import numpy as np
import pytest
import torch

from vitlab.errors import UserError
from vitlab.models import create_model
from vitlab.weights import load_model, save_model
from weights.helpers import (
    fill,
    golden_arrays,
    golden_cases,
    images_for,
    largest_difference,
    randomise,
    same_arrays,
    save_npz,
    tiny,
)

CASES = golden_cases()
LINEN = (
    ("LayerNorm_2", "LayerNorm_1"),
    ("MultiHeadDotProductAttention_1", "MultiHeadDotProductAttention_0"),
    ("MlpBlock_3", "MlpBlock_0"),
)


def linen(arrays):
    """Linen's numbering of the original's arrays."""
    renamed = {}
    for name, array in arrays.items():
        for original, newer in LINEN:
            name = name.replace(original, newer)
        renamed[name] = array
    return renamed


def scanned(arrays):
    """All layers stacked along a first axis."""
    stacks, rest = {}, {}
    for name, array in linen(arrays).items():
        match = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", name)
        if match:
            stacks.setdefault(match[2], {})[int(match[1])] = array
        else:
            rest[name] = array
    for inner, layers in stacks.items():
        rest[f"Transformer/encoderblock/{inner}"] = np.stack([layers[i] for i in range(len(layers))])
    return rest


LAYOUTS = {
    "linen": linen,
    "scan": scanned,
    "params/": lambda arrays: {f"params/{name}": array for name, array in linen(arrays).items()},
    "params/ and scan": lambda arrays: {f"params/{name}": array for name, array in scanned(arrays).items()},
    "opt/target/": lambda arrays: {f"opt/target/{name}": array for name, array in arrays.items()},
    "fortran order": lambda arrays: {name: np.asfortranarray(array) for name, array in arrays.items()},
    "big-endian": lambda arrays: {name: array.astype(">f4") for name, array in arrays.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["ViT-tiny-test_8", "ViT-tiny-test_8-rep", "R-small-test"])
def test_every_layout_gives_the_same_model(name, layout, tmp_path):
    case = CASES[name]
    size = (case["height"], case["width"])
    arrays = golden_arrays(case)
    original = load_model(save_npz(tmp_path / "original", arrays), image_size=size)
    other = load_model(save_npz(tmp_path / "other", LAYOUTS[layout](arrays)), image_size=size)
    assert other.config == original.config
    assert same_arrays(original, other)


def test_layers_are_not_mixed_up(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    model = load_model(save_npz(tmp_path / "x", scanned(arrays)))
    for layer in (0, 1):
        kernel = arrays[f"Transformer/encoderblock_{layer}/MlpBlock_3/Dense_0/kernel"]
        assert np.array_equal(model.blocks[layer].mlp.fc1.weight.detach().numpy(), kernel.T)


def test_compressed_archives_are_read(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    with (tmp_path / "x").open("wb") as file:
        np.savez_compressed(file, **arrays)
    assert same_arrays(load_model(tmp_path / "x"), load_model(save_npz(tmp_path / "y", arrays)))


def test_training_state_beside_the_parameters_is_counted(tmp_path, caplog):
    arrays = {f"params/{name}": array for name, array in golden_arrays(CASES["ViT-tiny-test_8"]).items()}
    arrays |= {"opt/0/mu/cls": np.zeros((1, 1, 32), np.float32), "step": np.zeros((), np.int64)}
    with caplog.at_level(logging.INFO, "vitlab"):
        load_model(save_npz(tmp_path / "x", arrays))
    assert "2 arrays left out: training state beside the parameters" in caplog.text


def test_bfloat16_of_jax_is_two_raw_bytes(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    truncated = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in arrays.items()}
    raw = {name: array.view("V2") for name, array in truncated.items()}
    expected = {name: (array.astype(np.uint32) << 16).view(np.float32) for name, array in truncated.items()}
    assert same_arrays(load_model(save_npz(tmp_path / "raw", raw)), load_model(save_npz(tmp_path / "float", expected)))


def test_big_visions_positions_have_no_row_for_the_class_token(tmp_path):
    """It adds positions before the class token comes in front: the same as a row of zeros."""
    arrays = linen(golden_arrays(CASES["ViT-tiny-test_8"]))
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    own = load_model(save_npz(tmp_path / "own", arrays | {"pos_embedding": table[:, 1:]}))
    table[:, 0] = 0
    with_row = arrays | {"Transformer/posembed_input/pos_embedding": table}
    assert same_arrays(own, load_model(save_npz(tmp_path / "row", with_row)))


def test_a_table_of_big_visions_never_has_a_class_row(tmp_path):
    """17 positions: a class token and a 4x4 grid, or, under big_vision's name, a grid of 1x17 that is asked for."""
    arrays = linen(golden_arrays(CASES["ViT-tiny-test_8"]))
    table = arrays.pop("Transformer/posembed_input/pos_embedding")
    assert table.shape == (1, 17, 32)
    model = load_model(save_npz(tmp_path / "x", arrays | {"pos_embedding": table}), image_size=(8, 136))
    assert model.config.grid == (1, 17)
    assert np.array_equal(model.pos_embed.detach().numpy()[:, 1:], table)
    assert not model.pos_embed[:, 0].any()


def test_big_visions_fixed_positions_are_not_in_the_file(tmp_path):
    arrays = linen(golden_arrays(CASES["ViT-tiny-test_8-gap"]))
    del arrays["Transformer/posembed_input/pos_embedding"]
    model = load_model(save_npz(tmp_path / "x", arrays), image_size=(48, 32))
    assert model.config.position == "sincos2d"
    assert model.config.grid == (6, 4)


def test_groups_norms_stored_with_four_axes(tmp_path):
    arrays = golden_arrays(CASES["R-small-test"])
    wide = {
        name: array.reshape(1, 1, 1, -1) if "/gn" in name or name.startswith("gn_") else array
        for name, array in arrays.items()
    }
    assert sum(wide[name].ndim != arrays[name].ndim for name in arrays) > 10
    assert same_arrays(load_model(save_npz(tmp_path / "wide", wide)), load_model(save_npz(tmp_path / "flat", arrays)))


def small_bit(blocks=(1, 2), classes=3):
    return randomise(create_model("BiT-R50x1", blocks=blocks, width=0.5, num_classes=classes, image_size=64))


def test_tensorflows_numbers_are_taken_off(tmp_path):
    model = small_bit()
    save_model(model, tmp_path / "plain.npz", format="flax")
    with np.load(tmp_path / "plain.npz") as file:
        plain = dict(file)
    numbered = {
        re.sub(r"standardized_conv2d", f"standardized_conv2d_{index}", name) if index % 2 else name: array
        for index, (name, array) in enumerate(plain.items())
    }
    assert numbered.keys() != plain.keys()
    back = load_model(save_npz(tmp_path / "numbered", numbered), image_size=64)
    assert back.config == model.config
    assert same_arrays(model, back)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"head": "gap"},
        {"representation": 24},
        {"num_classes": 0},
        {"patch": (4, 8), "image_size": (32, 64)},
        {"heads": 8},
        {"layers": 11},
    ],
    ids=str,
)
def test_there_and_back(options, tmp_path):
    model = tiny(**options)
    save_model(model, tmp_path / "x.npz", format="flax")
    back = load_model(tmp_path / "x.npz")
    assert back.config == model.config
    assert same_arrays(model, back)


@pytest.mark.parametrize(
    "options", [{"position": "none"}, {"position": "sincos2d"}, {"position": "learned2d"}], ids=str
)
@pytest.mark.parametrize("head", ["token", "gap"])
def test_other_positions_go_out_as_one_table_with_the_same_outputs(options, head, tmp_path):
    model = tiny(head=head, **options)
    save_model(model, tmp_path / "x.npz", format="flax")
    back = load_model(tmp_path / "x.npz")
    assert back.config == dataclasses.replace(model.config, position="learned")
    images = images_for(model)
    with torch.no_grad():
        assert largest_difference(model(images), back(images)) <= 1e-6


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"gelu": "erf"}, "gelu='erf'"),
        ({"position": "relative"}, "position='relative'"),
        ({"position_at": "every_layer"}, "position_at='every_layer'"),
        ({"axial": True, "head": "gap", "position": "learned2d"}, "an axial model"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(options, what, tmp_path):
    with pytest.raises(UserError, match=f"flax cannot hold {what}: save it as vitlab or onnx"):
        save_model(tiny(**options), tmp_path / "x.npz", format="flax")
    assert not list(tmp_path.iterdir())


def test_a_preprocessing_that_cannot_travel_is_pointed_out(tmp_path, caplog):
    model = tiny()
    model.preprocessing = dataclasses.replace(model.preprocessing, mean=(0.1, 0.2, 0.3))
    with caplog.at_level(logging.WARNING, "vitlab"):
        save_model(model, tmp_path / "x.npz", format="flax")
    assert "flax has no place for mean (0.1, 0.2, 0.3)" in caplog.text


def test_attention_pooling_is_named(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"]) | {"MAPHead_0/probe": np.zeros((1, 1, 32), np.float32)}
    with pytest.raises(UserError, match="pools by attention"):
        load_model(save_npz(tmp_path / "x", arrays))


def test_a_whole_layer_lost_is_named(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    gone = {name: array for name, array in arrays.items() if "encoderblock_0" not in name}
    with pytest.raises(UserError, match="number 0 is missing"):
        load_model(save_npz(tmp_path / "x", gone))


def test_one_lost_array_is_named(tmp_path):
    arrays = golden_arrays(CASES["ViT-tiny-test_8"])
    del arrays["Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/kernel"]
    with pytest.raises(UserError) as caught:
        load_model(save_npz(tmp_path / "x", arrays))
    assert "1 missing ('blocks.1.attn.qkv.weight')" in str(caught.value)
    assert "2 unexpected" in str(caught.value)


def test_filled_arrays_do_not_depend_on_their_order():
    assert np.array_equal(fill.tensor("cls", (1, 1, 4)), fill.tensor("cls", (1, 1, 4)))
