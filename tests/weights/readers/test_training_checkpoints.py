"""DeiT, DINO and MAE: timm's names inside what their training loops save with torch.save."""

import argparse
import logging
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from vitlab.errors import UserError
from vitlab.weights import load_model
from weights.helpers import same_arrays, tiny


@pytest.fixture
def model():
    return tiny(gelu="erf")


def head_of_dino(prefix=""):
    return {f"{prefix}head.mlp.0.weight": torch.zeros(4, 128), f"{prefix}head.last_layer.weight_g": torch.ones(9, 1)}


def decoder_of_mae():
    return {
        "mask_token": torch.zeros(1, 1, 64),
        "decoder_pos_embed": torch.zeros(1, 17, 64),
        "decoder_blocks.0.norm1.weight": torch.ones(64),
        "decoder_embed.weight": torch.zeros(64, 128),
    }


WRAPPERS = {
    "plain": lambda state: state,
    "DeiT": lambda state: {"model": state},
    "DeiT with its arguments": lambda state: {
        "model": state,
        "epoch": 299,
        "args": argparse.Namespace(lr=5e-4, data_path="/data", nested=argparse.Namespace(x=[1, 2.5, None, True])),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.1}]},
    },
    "timm": lambda state: {"state_dict": {f"module.{name}": array for name, array in state.items()}, "arch": "x"},
    "parameters": lambda state: {name: torch.nn.Parameter(array) for name, array in state.items()},
    "ordered": lambda state: OrderedDict(state),
    "views": lambda state: {name: torch.stack((array, array))[1] for name, array in state.items()},
    "transposed": lambda state: {
        name: array.T.contiguous().T if array.dim() == 2 else array for name, array in state.items()
    },
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper, model, tmp_path):
    torch.save(WRAPPERS[wrapper](model.state_dict()), tmp_path / "checkpoint")
    assert same_arrays(load_model(tmp_path / "checkpoint"), model)


def without_head(model):
    return {name: array for name, array in model.state_dict().items() if not name.startswith("head.")}


def test_dino_loads_its_teacher_and_leaves_its_head(model, tmp_path, caplog):
    teacher = {f"backbone.{name}": array for name, array in without_head(model).items()} | head_of_dino()
    student = {f"module.backbone.{name}": torch.zeros_like(array) for name, array in without_head(model).items()}
    checkpoint = {"student": student, "teacher": teacher, "epoch": 3, "args": argparse.Namespace(arch="vit_small")}
    torch.save(checkpoint, tmp_path / "dino.pth")
    with caplog.at_level(logging.INFO, "vitlab"):
        found = load_model(tmp_path / "dino.pth")
    assert found.config.num_classes == 0
    assert all(torch.equal(found.state_dict()[name], array) for name, array in without_head(model).items())
    assert "2 arrays left out: outside the model" in caplog.text


def test_dino_flattened_into_one_file(model, tmp_path):
    flat = {}
    for who, scale in (("teacher", 1), ("student", 0)):
        flat |= {f"{who}.backbone.{name}": array * scale for name, array in without_head(model).items()}
    save_file(flat, tmp_path / "x")
    found = load_model(tmp_path / "x")
    assert torch.equal(found.cls_token, model.cls_token)


def test_two_models_in_one_file_are_refused(model, tmp_path):
    flat = {}
    for who in ("first", "second"):
        flat |= {f"{who}.{name}": array.clone() for name, array in model.state_dict().items()}
    save_file(flat, tmp_path / "x")
    with pytest.raises(UserError, match=r"holds 2 models, under 'first\.', 'second\.'"):
        load_model(tmp_path / "x")


def test_mae_leaves_its_decoder(model, tmp_path, caplog):
    torch.save({"model": without_head(model) | decoder_of_mae()}, tmp_path / "mae.pth")
    with caplog.at_level(logging.INFO, "vitlab"):
        found = load_model(tmp_path / "mae.pth", num_classes=4)
    assert "3 arrays left out: the decoder of masked training" in caplog.text
    assert "1 arrays left out: the token of masked training" in caplog.text
    assert found.config.num_classes == 4
    assert not found.head.weight.any()
    assert torch.equal(found.pos_embed, model.pos_embed)


def test_half_precision_is_widened(model, tmp_path):
    torch.save({name: array.half() for name, array in model.state_dict().items()}, tmp_path / "x")
    found = load_model(tmp_path / "x")
    assert torch.equal(found.norm.weight, model.norm.weight.half().float())


def test_the_head_can_be_replaced_without_being_read(model, tmp_path):
    state = model.state_dict()
    state["head.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "x")
    assert load_model(tmp_path / "x", num_classes=2).config.num_classes == 2
    with pytest.raises(UserError, match=r"'head\.weight' are NaN or infinite"):
        load_model(tmp_path / "x")
