"""ONNX out and back: onnxruntime gives the model's outputs at any batch size, and `load_model` reads the file."""

import json
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from vitlab.errors import UserError
from vitlab.models import create_model
from vitlab.recipes.configs import ResNetStem
from vitlab.weights import load_model, save_model
from weights.helpers import TOLERANCE, images_for, largest_difference, randomise, same_arrays, tiny

MODELS = [
    pytest.param(lambda: randomise(create_model("ViT-Ti/16", num_classes=7, layers=3)), id="ViT-Ti/16"),
    pytest.param(lambda: tiny(head="gap", gelu="erf", representation=24, image_size=(32, 48)), id="gap"),
    pytest.param(lambda: tiny(position="relative"), id="relative"),
    pytest.param(lambda: tiny(position="learned2d", position_at="every_layer", num_classes=0), id="2-D, no head"),
    pytest.param(lambda: tiny(position="sincos2d"), id="sincos2d"),
    pytest.param(lambda: tiny(patch=1, layers=1, resnet=ResNetStem((1, 2), 0.5)), id="hybrid"),
    pytest.param(lambda: randomise(create_model("BiT-R50x1", blocks=(1, 2), num_classes=3, image_size=64)), id="BiT"),
    pytest.param(
        lambda: randomise(
            create_model("Axial-ViT-B/16", layers=1, hidden=64, heads=4, mlp=64, num_classes=3, image_size=64)
        ),
        id="axial",
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("make", MODELS)
def test_batches_of_one_two_and_five(make, tmp_path):
    model = make().train()
    save_model(model, tmp_path / "model.onnx", format="onnx")
    assert model.training, "the export left the model as it was"
    model.eval()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 2, 5):
        images = images_for(model, batch)
        with torch.no_grad():
            wanted = model(images)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        assert found.shape == wanted.shape
        assert largest_difference(found, wanted) <= TOLERANCE
    again = load_model(tmp_path / "model.onnx")
    assert again.config == model.config
    assert same_arrays(again, model), "the file read back is the model, bit for bit"


def test_a_new_model_whose_equal_arrays_exporters_like_to_merge_comes_back(tmp_path):
    """Norms are alike, and a head of zeros adds nothing."""
    model = create_model("ViT-Ti/16", layers=2, hidden=64, mlp=64, heads=2, image_size=32, num_classes=3)
    save_model(model, tmp_path / "model.onnx", format="onnx")
    assert same_arrays(load_model(tmp_path / "model.onnx"), model)


def test_an_export_without_one_of_its_arrays_is_refused(tmp_path):
    save_model(tiny(layers=1), tmp_path / "model.onnx", format="onnx")
    graph = onnx.load(tmp_path / "model.onnx")
    (gone,) = [array for array in graph.graph.initializer if array.name == "norm.weight"]
    graph.graph.initializer.remove(gone)
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"1 of its arrays are missing \('norm.weight'\); export the model again"):
        load_model(tmp_path / "model.onnx")


def test_what_the_file_says_of_itself(tmp_path):
    model = tiny(layers=1)
    model.classes = ("a", "b", "c", "d", "e")
    save_model(model, tmp_path / "model.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, 32, 32])
    assert (logits.name, logits.shape) == ("logits", ["batch", 5])
    told = json.loads(session.get_modelmeta().custom_metadata_map["vitlab"])
    assert told["config"]["hidden"] == 128
    assert told["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert told["classes"] == list(model.classes)
    # The exporter notes source files and lines of the machine it ran on.
    assert not re.search(rb"[\w/-]+\.py", (tmp_path / "model.onnx").read_bytes())
    again = load_model(tmp_path / "model.onnx")
    assert (again.config, again.classes, again.preprocessing) == (model.config, model.classes, model.preprocessing)


def test_a_model_beyond_one_file_is_refused(tmp_path):
    with torch.device("meta"):
        model = create_model("ViT-H/14")
    with pytest.raises(UserError, match=r"at most 2 GiB in one file, this model has 2\.4 GiB"):
        save_model(model, tmp_path / "model.onnx", format="onnx")


def test_zero_padding_stays_zero(tmp_path):
    """BiT pads with zeros before it pools; onnxruntime would merge both and pad with -inf.

    All activations are made negative, so that a border of zeros wins every maximum it takes part in.
    """
    model = randomise(create_model("BiT-R50x1", blocks=(1,), num_classes=3, image_size=32))
    with torch.no_grad():
        model.stem.conv.weight.copy_(torch.randn(64, 3, 7, 7))
    images = images_for(model) * 3 - 5
    save_model(model, tmp_path / "model.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    with torch.no_grad():
        wanted = model(images).numpy()
    assert np.abs(session.run(None, {"images": images.numpy()})[0] - wanted).max() <= TOLERANCE
