"""Every part of every kind of model gives features, or is refused in one line before the data is looked at."""

import numpy as np
import pytest
import torch

from vitlab import create_model
from vitlab.data.sources import select
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.evaluation import features as kept
from vitlab.evaluation.features import check_layer, check_layers, features_of, layer_features
from vitlab.models import ResNetStem
from vitlab.runtime import choose

CPU = choose("cpu")
IMAGES = 5
SMALL = {"num_classes": 3, "image_size": 14, "hidden": 16, "layers": 2, "heads": 2, "mlp": 16}
MODELS = {
    "plain": ("ViT-Ti/7", SMALL),
    "mean": ("ViT-Ti/7", {**SMALL, "head": "gap"}),
    "hidden layer": ("ViT-Ti/7", {**SMALL, "representation": 8}),
    "relative": ("ViT-Ti/7", {**SMALL, "position": "relative"}),
    "axial": ("Axial-ViT-B/16", {**SMALL, "image_size": 64}),
    "hybrid": ("R26+ViT-S/32", {**SMALL, "image_size": 32, "resnet": ResNetStem((1, 1), 0.5)}),
    "ResNet": ("BiT-R50x1", {"num_classes": 3, "image_size": 32, "blocks": (1, 1), "width": 0.5}),
    "AxialResNet": ("AxialResNet50", {"num_classes": 3, "image_size": 32, "blocks": (1, 1)}),
}


def _model(kind):
    torch.manual_seed(0)
    name, options = MODELS[kind]
    return create_model(name, **options).eval()


@pytest.fixture(scope="module")
def source():
    return select("some digits", [(open_source("digits", "test"), list(range(IMAGES)))])


@pytest.mark.parametrize("kind", list(MODELS))
def test_every_part_gives_features_or_is_refused_in_one_line(kind):
    model = _model(kind)
    images = torch.randn(IMAGES, 3, *model.preprocessing.size)
    taken, refused = [], {}
    with torch.no_grad():
        for name in [name for name, _ in model.named_modules() if name]:
            try:
                check_layer(model, name, model.preprocessing.size, torch.device("cpu"))
            except UserError as error:
                refused[name] = str(error)
            else:
                found = layer_features(model, name, images)
                assert found.ndim == 2
                assert len(found) == IMAGES
                taken.append(name)
    assert {"norm", "head"} <= set(taken)
    assert all("\n" not in message and "choose " in message for message in refused.values())
    assert not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("layer", ["pre_logits", "blocks", "patch_embed.proj", "blocks.1.attn.qkv"])
def test_a_part_that_is_never_run_is_said_before_the_data_is_read(source, monkeypatch, layer):
    monkeypatch.setattr(kept.loader, "evaluation_batches", None)
    model = _model("plain")
    with pytest.raises(
        UserError, match="never called.*choose patch_embed, blocks.0 to blocks.1, norm, head, or a module"
    ):
        features_of(model, source, model.preprocessing, CPU, layer=layer)


def test_an_output_that_is_not_one_an_image_is_said(source):
    model = _model("AxialResNet")
    expected = r"first axis is not the number of images; choose stem, stages, norm, head"
    with pytest.raises(UserError, match=expected):
        features_of(model, source, model.preprocessing, CPU, layer="stages.0.blocks.0.conv2.row")


def test_the_patches_alone_are_averaged_though_the_model_has_a_class_token(source):
    model = _model("plain")
    found, _ = features_of(model, source, model.preprocessing, CPU, layer="patch_embed")
    images = torch.cat([
        kept.loader.normalise(batch.images_BHWC, model.preprocessing, torch.device("cpu"))
        for batch in kept.loader.evaluation_batches(source, model.preprocessing, batch_size=2)
    ])  # fmt: skip
    with torch.no_grad():
        patches = model.patch_embed(images)
        first_block = model.blocks[0](model.embed(images))
    np.testing.assert_allclose(found, patches.mean(1).numpy(), atol=1e-5)
    found, _ = features_of(model, source, model.preprocessing, CPU, layer="blocks.0")
    np.testing.assert_allclose(found, first_block[:, 0].numpy(), atol=1e-5)


def test_the_logits_of_relative_positions_are_no_map():
    model = _model("relative")
    with pytest.raises(UserError, match="not a tensor of features"):
        check_layer(model, "blocks.0.attn.relative", model.preprocessing.size, torch.device("cpu"))


def test_features_kept_by_an_earlier_version_are_not_taken_for_todays(source, tmp_path, monkeypatch):
    model = _model("plain")
    way = f"{model.preprocessing} {CPU.compute} patch_embed"
    monkeypatch.setattr(kept, "_processing", lambda *_: way)
    features_of(model, source, model.preprocessing, CPU, layer="patch_embed", cache=tmp_path)
    monkeypatch.undo()
    features_of(model, source, model.preprocessing, CPU, layer="patch_embed", cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_layer_is_looked_for_in_every_model_at_once_and_they_stay_as_they_were():
    hidden, plain = _model("hidden layer").train(), _model("plain")
    check_layers({"one": hidden}, "pre_logits", CPU)
    assert hidden.training
    with pytest.raises(UserError, match="^other: .* never called"):
        check_layers({"one": hidden, "other": plain}, "pre_logits", CPU)
