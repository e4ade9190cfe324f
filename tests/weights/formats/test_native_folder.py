"""vitlab's own folder: what goes in comes out, and what does not fit is refused in one line."""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.ndimage import zoom

from vitlab.errors import UserError
from vitlab.models import create_model
from vitlab.models.vit import VisionTransformer
from vitlab.weights import load_model, save_model
from weights.helpers import images_for, largest_difference, randomise, same_arrays, tiny

VARIANTS = [
    {},
    {"head": "gap", "gelu": "erf", "norm_eps": 1e-12},
    {"representation": 24, "dropout": 0.1, "drop_path": 0.1},
    {"patch": (4, 8), "image_size": (32, 48)},
    {"num_classes": 0},
    {"position": "none"},
    {"position": "relative"},
    {"position": "sincos2d"},
    {"position": "learned2d"},
    {"position_at": "every_layer"},
    {"position": "learned2d", "position_at": "every_layer_shared"},
    {"axial": True, "head": "gap", "position": "learned2d"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_comes_back_as_it_was(options, tmp_path):
    model = tiny(**options)
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert back.config == model.config
    assert same_arrays(model, back)
    assert not back.training
    images = images_for(model)
    assert torch.equal(model(images), back(images))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("R+ViT-Ti/16", {"layers": 1, "image_size": 64}),
        ("R50+ViT-B/16", {"layers": 1, "hidden": 64, "heads": 1, "mlp": 64, "image_size": 64}),
        ("BiT-R50x1", {"blocks": (1, 2), "width": 0.5, "image_size": 64}),
        ("AxialResNet50", {"blocks": (1, 1), "image_size": 64}),
    ],
)
def test_hybrids_and_resnets_come_back(name, options, tmp_path):
    model = randomise(create_model(name, num_classes=3, **options))
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert back.config == model.config
    assert same_arrays(model, back)
    images = images_for(model)
    assert torch.equal(model(images), back(images))


def test_preprocessing_and_class_names_travel(tmp_path):
    model = tiny(num_classes=3)
    model.preprocessing = dataclasses.replace(
        model.preprocessing, resize="shorter_side", crop=0.9, interpolation="bicubic", mean=(0.1, 0.2, 0.3)
    )
    model.classes = ("cat", "<dog>", "été")
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    assert back.preprocessing == model.preprocessing
    assert back.classes == model.classes
    assert load_model(tmp_path / "model", num_classes=4).classes is None


def test_a_run_directory_and_a_file_in_a_folder_are_sources_too(tmp_path):
    model = tiny(gelu="erf")
    save_model(model, tmp_path / "run" / "model")
    for source in (tmp_path / "run", tmp_path / "run" / "model" / "model.safetensors"):
        back = load_model(source)
        assert back.config == model.config
        assert same_arrays(model, back)


def test_loading_draws_no_random_numbers(tmp_path):
    save_model(tiny(), tmp_path / "model")
    before = torch.random.get_rng_state()
    load_model(tmp_path / "model", num_classes=7, image_size=64)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_loaded_model_does_not_live_in_the_file(tmp_path):
    model = tiny()
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert same_arrays(model, back)


def test_another_number_of_classes_starts_a_head_of_zeros(tmp_path):
    model = tiny(representation=24)
    save_model(model, tmp_path / "model")
    back = load_model(tmp_path / "model", num_classes=9)
    assert back.config.num_classes == 9
    assert back.config.representation is None
    assert not back.head.weight.any()
    assert not back.head.bias.any()
    kept = {name for name in model.state_dict() if not name.startswith(("head", "pre_logits"))}
    assert all(torch.equal(model.state_dict()[name], back.state_dict()[name]) for name in kept)
    assert load_model(tmp_path / "model", num_classes=5).config.representation == 24


@pytest.mark.parametrize("head", ["token", "gap"])
def test_another_image_size_resamples_by_the_originals_rule(head, tmp_path, caplog):
    model = tiny(head=head)
    save_model(model, tmp_path / "model")
    with caplog.at_level(logging.WARNING, "vitlab"):
        back = load_model(tmp_path / "model", image_size=(48, 24))
    assert "resampled from (4, 4) to (6, 3)" in caplog.text
    assert back.preprocessing.size == (48, 24)
    first = 1 if head == "token" else 0
    table = model.pos_embed.detach().numpy()
    grid = table[0, first:].reshape(4, 4, -1)
    expected = zoom(grid, (6 / 4, 3 / 4, 1), order=1).reshape(1, 18, -1)
    expected = np.concatenate([table[:, :first], expected], axis=1)
    assert largest_difference(back.pos_embed.detach(), expected) <= 1e-6
    assert back(images_for(back)).shape == (2, 5)


def test_the_same_image_size_changes_nothing_and_says_nothing(tmp_path, caplog):
    model = tiny()
    save_model(model, tmp_path / "model")
    with caplog.at_level(logging.INFO, "vitlab"):
        assert same_arrays(load_model(tmp_path / "model", image_size=32, num_classes=5), model)
    assert caplog.text == ""


def test_a_head_of_all_zeros_is_pointed_out(tmp_path, caplog):
    save_model(create_model("ViT-Ti/16", layers=1, image_size=32), tmp_path / "model")
    with caplog.at_level(logging.WARNING, "vitlab"):
        load_model(tmp_path / "model")
    assert "the head is all zeros" in caplog.text


def _damaged(tmp_path, change):
    save_model(tiny(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_unexpected_and_misshaped_arrays_are_counted_and_named(tmp_path):
    def change(arrays):
        del arrays["norm.weight"], arrays["blocks.0.mlp.fc1.bias"]
        arrays["extra.one"] = torch.zeros(3)
        arrays["head.weight"] = torch.zeros(4, 128)

    message = _damaged(tmp_path, change)
    assert "2 missing ('blocks.0.mlp.fc1.bias', 'norm.weight')" in message
    assert "1 unexpected ('extra.one')" in message
    assert "1 misshaped ('head.weight: (4, 128) where (5, 128) was expected')" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, tmp_path):
    def change(arrays):
        arrays["blocks.1.attn.qkv.weight"][3, 4] = value

    assert "1 of 49152 numbers in 'blocks.1.attn.qkv.weight' are NaN or infinite" in _damaged(tmp_path, change)


def test_arrays_of_whole_numbers_are_refused(tmp_path):
    def change(arrays):
        arrays["norm.bias"] = torch.zeros(128, dtype=torch.int64)

    assert "1 arrays ('norm.bias') hold int64; weights are one of float64, float32" in _damaged(tmp_path, change)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types_are_read_as_float32(kind, tmp_path):
    model = tiny()
    save_model(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    save_file({name: array.to(kind) for name, array in load_file(file).items()}, file)
    back = load_model(tmp_path / "model")
    for name, array in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], array.to(kind).float())


CONFIG_FAULTS = [
    ({"version": 2}, "version 2 .* reads version 1"),
    ({"model": "cnn"}, "model 'cnn', known are vit, resnet"),
    ({"model": ["vit"]}, "known are vit, resnet"),
    ({"config": {"patch": 8}}, "hidden"),
    ({"config": None}, "config"),
    ({"preprocessing": {"size": [1, 2], "crop": "x"}}, "preprocessing"),
    ({"classes": ["a", "b"]}, "names 2 classes, the head has 5"),
    ({"classes": 3}, "classes"),
]


@pytest.mark.parametrize(("change", "message"), CONFIG_FAULTS, ids=str)
def test_a_config_that_does_not_fit_is_refused(change, message, tmp_path):
    save_model(tiny(), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


BOMBS = [
    {"layers": 10**9},
    {"hidden": 2 * 10**9},
    {"hidden": 2 * 10**30},
    {"mlp": 10**12},
    {"image_size": 8 * 10**7},
    {"num_classes": 10**10},
    {"representation": 10**9},
    {"resnet": {"blocks": [10**9], "width": 1}, "patch": 1},
    {"resnet": {"blocks": [1], "width": 10**12}, "patch": 1},
]


@pytest.mark.parametrize("change", BOMBS, ids=str)
def test_a_config_that_asks_for_more_than_the_file_holds_is_refused_at_once(change, tmp_path):
    save_model(tiny(), tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    description = json.loads(file.read_text())
    description["config"] |= change
    file.write_text(json.dumps(description))
    with pytest.raises(UserError) as caught:
        load_model(tmp_path / "model")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"', "\xff"])
def test_a_config_that_is_no_json_object_is_refused(text, tmp_path):
    save_model(tiny(), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.json"):
        load_model(tmp_path / "model")


def test_a_folder_with_other_things_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"holds 'thesis\.txt' and would be replaced"):
        save_model(tiny(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file, the model needs a folder"):
        save_model(tiny(), tmp_path / "file")


def test_a_model_is_replaced_by_a_model(tmp_path):
    first, second = tiny(), randomise(tiny(), seed=3)
    save_model(first, tmp_path / "model")
    save_model(second, tmp_path / "model")
    assert same_arrays(load_model(tmp_path / "model"), second)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown format 'tim': did you mean timm\?.*transformers"):
        save_model(tiny(), "nowhere", format="tim")


def test_shards_are_read_together(tmp_path):
    model = tiny()
    save_model(model, tmp_path / "model")
    whole = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    names = sorted(whole)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: whole[name] for name in part}, tmp_path / "model" / shard)
        index |= dict.fromkeys(part, shard)
    place = tmp_path / "model" / "model.safetensors.index.json"
    place.write_text(json.dumps({"weight_map": index}))
    assert same_arrays(load_model(tmp_path / "model"), model)
    save_file(whole, tmp_path / "model" / shard)
    with pytest.raises(UserError, match="is in .*; keep one"):
        load_model(tmp_path / "model")
    (tmp_path / "model" / shard).unlink()
    with pytest.raises(UserError, match="names 2 shards, 'model-00002-of-00002.safetensors' is missing"):
        load_model(tmp_path / "model")
    place.write_text(json.dumps({"weight_map": {"x": "../model-00001-of-00002.safetensors"}}))
    with pytest.raises(UserError, match="does not name the shards that lie beside it"):
        load_model(tmp_path / "model")


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load_model(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no weights file"):
        load_model(tmp_path)


def test_a_model_is_built_once_and_draws_nothing(tmp_path, monkeypatch):
    model = tiny()
    save_model(model, tmp_path / "model")
    made, build = [], VisionTransformer.__init__

    def counted(self, config):
        build(self, config)
        made.append({parameter.device.type for parameter in self.parameters()})

    monkeypatch.setattr(VisionTransformer, "__init__", counted)
    before = torch.get_rng_state()
    again = load_model(tmp_path / "model")
    assert made == [{"meta"}], "shapes are compared before memory is taken"
    assert torch.equal(torch.get_rng_state(), before), "no start is drawn for weights that are then replaced"
    assert same_arrays(again, model)
