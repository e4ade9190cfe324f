"""Features of any layer, and features kept for the next time."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vitlab import create_model
from vitlab.data.sources import select
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation import features as kept
from vitlab.evaluation.features import features_of
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import choose

CPU = choose("cpu")
IMAGES = 12


def _model(**options):
    torch.manual_seed(0)
    given = {"num_classes": 3, "image_size": 14, "hidden": 16, "layers": 2, "heads": 2, "mlp": 16, **options}
    return create_model("ViT-Ti/7", **given).eval()


@pytest.fixture(scope="module")
def source():
    whole = open_source("digits", "test")
    return select("some digits", [(whole, list(range(IMAGES)))])


def _seen(model, source, layer=None, cache=None):
    return features_of(model, source, model.preprocessing, CPU, layer=layer, cache=cache, batch_size=5)


@pytest.mark.parametrize("options", [{}, {"head": "gap"}, {"representation": 8}], ids=str)
def test_the_last_features_are_the_models_own(source, options):
    model = _model(**options)
    found, labels = _seen(model, source)
    assert found.shape == (IMAGES, options.get("representation", 16))
    np.testing.assert_array_equal(labels, source.labels_N)
    normed, _ = _seen(model, source, "norm")
    if not options.get("representation"):
        np.testing.assert_allclose(normed, found, atol=1e-6)


def test_a_layer_by_its_name_is_what_comes_out_of_it(source):
    model = _model()
    first, _ = _seen(model, source, "blocks.0")
    last, _ = _seen(model, source, "blocks.1")
    assert first.shape == last.shape == (IMAGES, 16)
    assert not np.allclose(first, last)
    with torch.no_grad():  # by hand: the final norm over the last block's class token is the feature
        normed = model.norm(torch.from_numpy(last))
    np.testing.assert_allclose(normed.numpy(), _seen(model, source)[0], atol=1e-5)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_head_and_maps_of_a_resnet(source):
    model = _model()
    torch.nn.init.normal_(model.head.weight)
    logits, _ = _seen(model, source, "head")
    assert logits.shape == (IMAGES, 3)
    resnet = create_model("BiT-R50x1", blocks=(1,), width=0.5, image_size=32, num_classes=2).eval()
    found, _ = features_of(resnet, source, resnet.preprocessing, CPU, layer="stages.0")
    assert found.shape == (IMAGES, resnet.config.feature_width)


def test_an_unknown_layer_is_one_line(source):
    with pytest.raises(UserError, match=r"blocks\.1"):
        _seen(_model(), source, "blocks.9")


def test_kept_features_are_read_again_and_not_computed(source, tmp_path, monkeypatch):
    model = _model()
    first = _seen(model, source, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(kept, "_computed", None)
    again = _seen(model, source, cache=tmp_path)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_anything_that_features_depend_on_gives_another_file(source, tmp_path):
    model = _model()
    _seen(model, source, cache=tmp_path)
    with torch.no_grad():
        model.norm.bias[0] += 1e-3
    _seen(model, source, cache=tmp_path)
    _seen(model, source, cache=tmp_path, layer="blocks.0")
    _seen(model, select("fewer", [(source, [0, 1])]), cache=tmp_path)
    features_of(model, source, Preprocessing(size=(14, 14), mean=(0.4, 0.5, 0.5)), CPU, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_the_cache_of_another_model_is_refused(source, tmp_path):
    one, other = _model(), _model()
    torch.nn.init.normal_(other.norm.weight)
    _seen(one, source, cache=tmp_path / "one")
    _seen(other, source, cache=tmp_path / "other")
    (wrong,), (right,) = ((tmp_path / name).iterdir() for name in ("one", "other"))
    right.write_bytes(wrong.read_bytes())
    with pytest.raises(UserError, match="another model"):
        _seen(other, source, cache=tmp_path / "other")


@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_cache_is_one_line(source, tmp_path, damage):
    model = _model()
    _seen(model, source, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[:-20])
    elif damage == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        path.write_text("features")
    with pytest.raises(UserError, match="remove the file") as error:
        _seen(model, source, cache=tmp_path)
    assert "\n" not in str(error.value)


def test_a_foreign_safetensors_file_is_one_line(source, tmp_path):
    model = _model()
    _seen(model, source, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    save_file({"x": load_file(path)["labels"]}, path)
    with pytest.raises(UserError, match="remove the file"):
        _seen(model, source, cache=tmp_path)
