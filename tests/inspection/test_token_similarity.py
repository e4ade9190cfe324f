"""Likeness of tokens against plain loops."""

import math

import numpy as np
import pytest
import torch

from vitlab.errors import UserError
from vitlab.inspection import token_similarity
from vitlab.models.build import build
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig

VARIANTS = {
    "plain": ViTConfig(4, 16, 3, 32, 2, image_size=(8, 12), num_classes=5),
    "gap": ViTConfig(4, 16, 2, 32, 2, image_size=8, num_classes=5, head="gap"),
    "every layer": ViTConfig(4, 16, 2, 32, 2, image_size=8, num_classes=5, position_at="every_layer"),
    "axial": ViTConfig(4, 16, 2, 32, 2, image_size=8, num_classes=5, head="gap", axial=True),
    "hybrid": ViTConfig(1, 16, 2, 32, 2, image_size=32, num_classes=5, resnet=ResNetStem((1, 1), 0.5)),
}


def made(config):
    torch.manual_seed(0)
    return build(config), torch.randn(2, 3, *config.image_hw)


@pytest.mark.parametrize("name", VARIANTS)
def test_it_is_the_cosine_of_every_two_patches(name):
    model, images = made(VARIANTS[name])
    model.eval()
    with torch.no_grad():
        tokens = model.embed(images)
        for depth in range(model.config.layers + 1):
            found = token_similarity(model, images, depth)
            patches = tokens[:, model.prefix_tokens :].double().numpy()
            for image in range(2):
                for one, first in enumerate(patches[image]):
                    for two, second in enumerate(patches[image]):
                        expected = first @ second / math.sqrt((first @ first) * (second @ second))
                        assert found[image, one, two] == pytest.approx(expected, abs=1e-5)
            if depth < model.config.layers:
                tokens = model.blocks[depth](model.layer_input(depth, tokens))


def test_it_leaves_the_model_as_it_was_and_computes_no_layer_too_many():
    model, images = made(VARIANTS["plain"])
    model.train()
    model.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail("layer 2 was not asked for"))
    found = token_similarity(model, images, 2)
    assert model.training
    assert not found.requires_grad
    np.testing.assert_allclose(found.diagonal(dim1=1, dim2=2), 1, rtol=1e-6)


def test_wrong_questions_are_refused():
    model, images = made(VARIANTS["plain"])
    for depth in (-1, 4):
        with pytest.raises(UserError, match="give 0 to 3"):
            token_similarity(model, images, depth)
    with pytest.raises(UserError, match="not available for a ResNet"):
        token_similarity(build(ResNetConfig((1,), 0.5, image_size=32, num_classes=3)), images, 0)
