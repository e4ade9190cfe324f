"""One model through everyone's format and home again."""

import dataclasses

import pytest
import torch

from vitlab.models import create_model
from vitlab.weights import load_model, save_model
from weights.helpers import images_for, randomise, same_arrays, tiny


def through(model, formats, tmp_path):
    for number, format in enumerate(formats):
        place = tmp_path / f"{number}-{format}"
        save_model(model, place, format=format)
        model = load_model(place, image_size=model.config.image_size)
    return model


@pytest.mark.parametrize("name", ["tiny", "ViT-Ti/16"])
def test_vitlab_flax_timm_transformers_vitlab(name, tmp_path):
    model = tiny() if name == "tiny" else randomise(create_model(name, num_classes=11))
    home = through(model, ["vitlab", "flax", "timm", "transformers", "vitlab"], tmp_path)
    assert same_arrays(model, home)
    assert home.config == model.config
    assert home.preprocessing == model.preprocessing
    images = images_for(model)
    with torch.no_grad():
        assert torch.equal(model(images), home(images))


def test_the_exact_gelu_through_those_that_hold_it(tmp_path):
    model = tiny(gelu="erf")
    model.classes = ("a", "b", "c", "d", "e")
    home = through(model, ["timm", "transformers", "vitlab"], tmp_path)
    assert same_arrays(model, home)
    assert (home.config, home.classes) == (model.config, model.classes)
    assert same_arrays(model, through(model, ["torchvision"], tmp_path / "last"))


def test_a_hybrid_through_those_that_hold_it(tmp_path):
    model = randomise(create_model("R26+ViT-S/32", layers=1, num_classes=3, image_size=64))
    home = through(model, ["flax", "timm", "vitlab"], tmp_path)
    assert same_arrays(model, home)
    assert home.config == model.config


def test_a_resnet_through_those_that_hold_it(tmp_path):
    model = randomise(create_model("BiT-R50x1", num_classes=3, image_size=64))
    home = through(model, ["flax", "timm", "transformers", "vitlab"], tmp_path)
    assert same_arrays(model, home)
    assert home.config == dataclasses.replace(model.config)
