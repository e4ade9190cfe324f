"""The certificate measures, and does not flatter."""

import logging
import math

import pytest
import torch

from vitlab.models import create_model
from vitlab.weights import load_model, save_model
from vitlab.weights.parity import Certificate, certificate
from weights.helpers import images_for, randomise, tiny

EXPORTS = [
    ("vitlab", {}, "vitlab's importer"),
    ("flax", {}, "vitlab's importer"),
    ("timm", {"gelu": "erf", "num_classes": 0}, "timm "),
    ("transformers", {}, "transformers "),
    ("transformers", {"num_classes": 0}, "transformers "),
    ("torchvision", {"gelu": "erf", "representation": 24}, "torchvision "),
    ("onnx", {}, "onnxruntime "),
]


@pytest.mark.parametrize(("format", "options", "through"), EXPORTS, ids=str)
def test_every_format_is_certified(format, options, through, timm, transformers, torchvision_vit, tmp_path):
    model = tiny(layers=1, **options).train()
    save_model(model, tmp_path / "x", format=format)
    found = certificate(model, tmp_path / "x", format, images_for(model, 3))
    assert found.passed, str(found)
    assert found.through.startswith(through)
    assert found.images == 3
    assert found.largest > 0.1
    assert model.training


def test_a_resnet_through_transformers(transformers, tmp_path):
    for classes in (0, 3):
        model = randomise(create_model("BiT-R50x1", blocks=(1,), width=0.5, num_classes=classes, image_size=64))
        save_model(model, tmp_path / "x", format="transformers")
        assert certificate(model, tmp_path / "x", "transformers", images_for(model)).passed


def test_a_difference_is_measured_and_fails(tmp_path):
    model = tiny()
    save_model(model, tmp_path / "x")
    with torch.no_grad():
        model.head.bias[2] += 0.25
    found = certificate(model, tmp_path / "x", "vitlab", images_for(model))
    assert found.difference == pytest.approx(0.25, abs=1e-5)
    assert not found.passed
    assert "NO PARITY" in str(found)


def test_a_grid_that_is_not_square_is_certified_too(tmp_path):
    model = tiny(image_size=(32, 48))
    save_model(model, tmp_path / "x", format="flax")
    assert certificate(model, tmp_path / "x", "flax", images_for(model)).passed


def test_not_a_number_is_no_parity():
    assert not Certificate("vitlab", "x", 1, math.nan, 1.0).passed


def test_the_certificate_says_what_it_compared():
    text = str(Certificate("timm", "timm 1.0", 8, 2e-6, 3.5))
    assert text == "parity: timm through timm 1.0, 8 images, largest difference 2.0e-06 (bar 1e-04, largest logit 3.50)"


def test_a_model_that_was_read_says_so_in_the_log_only(tmp_path, capsys, caplog):
    save_model(tiny(), tmp_path / "x")
    with caplog.at_level(logging.INFO, "vitlab"):
        load_model(tmp_path / "x")
    assert capsys.readouterr().out == ""
