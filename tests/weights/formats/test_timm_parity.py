"""timm as the oracle: what it saved gives its logits here, and what is saved here gives these logits there."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vitlab.errors import UserError
from vitlab.models import create_model
from vitlab.weights import load_model, save_model
from weights.helpers import TOLERANCE, images_for, largest_difference, randomise, same_arrays, tiny

IMPORTS = [
    ("vit_tiny_patch16_224", {}, ()),
    ("vit_tiny_patch16_224", {"global_pool": "avg", "class_token": False, "fc_norm": False}, ()),
    ("vit_tiny_patch16_224", {"img_size": (96, 160), "act_layer": "gelu_tanh"}, ()),
    ("vit_tiny_patch16_224", {"init_values": 0.5, "img_size": 64}, ()),
    ("vit_tiny_patch16_224", {"no_embed_class": True, "img_size": 64}, ()),
    ("vit_tiny_patch16_224", {"num_heads": 4, "img_size": 64, "patch_size": (8, 16)}, ()),
    ("vit_tiny_r_s16_p8_224", {}, ()),
    ("vit_small_r26_s32_224", {}, pytest.mark.long),
    ("resnetv2_50x1_bit", {}, pytest.mark.long),
    ("vit_small_patch16_224", {}, pytest.mark.long),
    ("vit_base_patch16_224", {}, pytest.mark.long),
]


@pytest.mark.parametrize(
    ("name", "arguments"), [pytest.param(name, kw, marks=marks, id=f"{name} {kw}") for name, kw, marks in IMPORTS]
)
def test_both_ways(name, arguments, timm, tmp_path):
    theirs = randomise(timm.create_model(name, num_classes=7, **arguments))
    timm.models.save_for_hf(theirs, tmp_path / "theirs", safe_serialization=True, model_args=arguments)
    ours = load_model(tmp_path / "theirs")
    images = images_for(ours)
    save_model(ours, tmp_path / "ours", format="timm")
    again = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    with torch.no_grad():
        wanted, found, returned = theirs(images), ours(images), again(images)
    assert wanted.abs().max() > 0.1
    assert largest_difference(wanted, found) <= TOLERANCE
    assert largest_difference(found, returned) <= TOLERANCE
    assert same_arrays(ours, load_model(tmp_path / "ours"))


EXPORTS = [
    {},
    {"gelu": "erf", "head": "gap"},
    {"patch": (4, 8), "image_size": (32, 48), "heads": 4},
    {"position": "sincos2d"},
    {"num_classes": 0},
]


@pytest.mark.parametrize("options", EXPORTS, ids=str)
def test_models_of_any_shape_go_out(options, timm, tmp_path):
    model = tiny(**options)
    save_model(model, tmp_path / "ours", format="timm")
    other = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    images = images_for(model)
    with torch.no_grad():
        assert largest_difference(model(images), other(images)) <= TOLERANCE


def test_r50_l16_which_timm_has_no_name_for(timm, tmp_path):
    options = {"layers": 1, "hidden": 128, "mlp": 128, "heads": 2, "image_size": 64, "num_classes": 4}
    model = randomise(create_model("R50+ViT-L/16", **options))
    save_model(model, tmp_path / "ours", format="timm")
    other = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    images = images_for(model)
    with torch.no_grad():
        assert largest_difference(model(images), other(images)) <= TOLERANCE


def test_preprocessing_and_class_names_travel_through_timm(timm, tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=1)
    data = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.9, "interpolation": "bicubic"}
    timm.models.save_for_hf(
        randomise(theirs),
        tmp_path / "theirs",
        safe_serialization=True,
        model_args={"depth": 1},
        model_config={"label_names": ["cat", "dog"]},
        data_config=data,
    )
    ours = load_model(tmp_path / "theirs")
    assert ours.preprocessing.mean == (0.1, 0.2, 0.3)
    assert ours.preprocessing.std == (0.4, 0.5, 0.6)
    assert (ours.preprocessing.resize, ours.preprocessing.crop) == ("shorter_side", 0.9)
    assert ours.preprocessing.interpolation == "bicubic"
    assert ours.classes == ("cat", "dog")
    save_model(ours, tmp_path / "ours", format="timm")
    assert load_model(tmp_path / "ours").preprocessing == ours.preprocessing
    assert load_model(tmp_path / "ours").classes == ours.classes


def test_timm_reads_the_npz_we_write(timm, tmp_path):
    """timm's own reader of Flax files is an oracle of ours that shares no code with it."""
    model = randomise(create_model("ViT-Ti/16", num_classes=7))
    save_model(model, tmp_path / "model.npz", format="flax")
    other = timm.create_model("vit_tiny_patch16_224", num_classes=7, act_layer="gelu_tanh").eval()
    other.load_pretrained(tmp_path / "model.npz")
    images = images_for(model)
    with torch.no_grad():
        assert largest_difference(model(images), other(images)) <= TOLERANCE


def _bare(model):
    return {name: array.clone() for name, array in model.state_dict().items()}


def test_a_bare_file_is_erf_with_imagenets_statistics(timm, tmp_path, caplog):
    theirs = randomise(timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=1))
    save_file(_bare(theirs), tmp_path / "x")
    with caplog.at_level(logging.WARNING, "vitlab"):
        ours = load_model(tmp_path / "x")
    assert ours.config.gelu == "erf"
    assert ours.preprocessing.mean == (0.485, 0.456, 0.406)
    assert "ImageNet's mean and std are assumed" in caplog.text
    images = images_for(ours)
    with torch.no_grad():
        assert largest_difference(theirs(images), ours(images)) <= TOLERANCE


FOREIGN = [
    ({"reg_tokens": 4}, "has register tokens"),
    ({"qk_norm": True}, "normalises its queries and keys"),
    ({"pre_norm": True}, "normalises before its first block"),
    ({"global_pool": "avg"}, "averages the patch tokens before its last norm"),
    ({"global_pool": "map"}, "pools by attention"),
]


@pytest.mark.parametrize(("arguments", "what"), FOREIGN)
def test_models_that_are_not_the_papers_are_refused_by_name(arguments, what, timm, tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7, depth=1, **arguments)
    save_file(_bare(theirs), tmp_path / "x")
    with pytest.raises(UserError, match=what):
        load_model(tmp_path / "x")


def test_a_distilled_deit_is_refused_by_name(timm, tmp_path):
    theirs = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7)
    save_file(_bare(theirs), tmp_path / "x")
    with pytest.raises(UserError, match="has a distillation token"):
        load_model(tmp_path / "x")


def test_heads_of_a_width_that_nothing_names_are_asked_for(tmp_path):
    save_model(tiny(hidden=96, heads=2), tmp_path / "ours", format="timm")
    assert load_model(tmp_path / "ours").config.heads == 2
    (tmp_path / "ours" / "config.json").unlink()
    with pytest.raises(UserError, match="do not determine the number of heads of width 96; put a config.json beside"):
        load_model(tmp_path / "ours")


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (640, 10)])
def test_the_zoos_widths_tell_their_heads(width, heads, tmp_path):
    model = tiny(hidden=width, heads=heads, layers=1, mlp=8)
    save_model(model, tmp_path / "ours", format="timm")
    (tmp_path / "ours" / "config.json").unlink()
    assert load_model(tmp_path / "ours").config.heads == heads


def test_statistics_in_two_files_must_agree(tmp_path):
    save_model(tiny(), tmp_path / "ours", format="timm")
    other = {"size": {"height": 32, "width": 32}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.2, 0.2, 0.2]}
    (tmp_path / "ours" / "preprocessor_config.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"says mean \(0.5, 0.5, 0.5\).*correct one of them"):
        load_model(tmp_path / "ours")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_args", {"act_layer": "relu"}, "act_layer 'relu' is no GELU"),
        ("pretrained_cfg", {"mean": [1, "x", 2]}, "wrong mean"),
        ("pretrained_cfg", {"crop_pct": -1}, "wrong crop: .*greater than 0"),
        ("pretrained_cfg", {"std": [0, 1, 1]}, "wrong std.0: .*greater than 0"),
        ("label_names", ["one"], "names 1 classes, the head has 5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(key, value, message, tmp_path):
    save_model(tiny(), tmp_path / "ours", format="timm")
    place = tmp_path / "ours" / "config.json"
    settings = json.loads(place.read_text())
    settings[key] = settings.get(key, {}) | value if isinstance(value, dict) else value
    place.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "ours")


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("BiT-R50x2", {}, "timm builds no BiT ResNet"),
        ("BiT-R152x1", {}, "timm builds no BiT ResNet"),
        ("R50+ViT-B/16", {"resnet": {"blocks": (1,)}, "layers": 1}, "timm builds no hybrid"),
        ("ViT-Ti/16", {"representation": 8}, "timm cannot hold the representation layer"),
    ],
)
def test_what_timm_does_not_build_is_refused(name, options, what, tmp_path):
    if "resnet" in options:
        model = tiny(patch=1, resnet=options["resnet"], image_size=32)
    else:
        with torch.device("meta"):
            model = create_model(name, **options)
    with pytest.raises(UserError, match=what):
        save_model(model, tmp_path / "x", format="timm")


def test_arrays_are_float32(tmp_path):
    save_model(tiny(), tmp_path / "ours", format="timm")
    assert all(array.dtype == torch.float32 for array in load_model(tmp_path / "ours").state_dict().values())
    assert np.isfinite(1.0)
