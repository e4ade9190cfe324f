"""The steps from image to logits say what the model really does."""

import numpy as np
import pytest
import torch

from vitlab.errors import UserError
from vitlab.inspection.patches import patch_grid, token_steps
from vitlab.models.build import build
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig

PLAIN = ViTConfig((4, 6), 16, 2, 32, 2, image_size=(8, 18), num_classes=5, representation=7)
GAP = ViTConfig(4, 16, 2, 32, 2, image_size=(8, 12), num_classes=5, head="gap", position="none")
HYBRID = ViTConfig(2, 16, 2, 32, 2, image_size=(64, 32), num_classes=5, resnet=ResNetStem((1, 1), 0.5))


def shapes_in(model, images):
    """Shapes of what flows through the model, for one image."""
    seen = {}
    conv = model.patch_embed.proj
    with torch.no_grad():
        tokens = model.embed(images)
        seen["encoder"] = tuple(model.encode(tokens).shape[1:])
        seen["positions"] = seen["class token"] = tuple(tokens.shape[1:])
        seen["representation"] = tuple(model.features(images).shape[1:])
        seen["logits"] = tuple(model(images).shape[1:])
    count = tokens.shape[1] - model.prefix_tokens
    seen["patch embeddings"] = (count, conv.out_channels)
    seen["sequence"] = (count, conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1])
    seen["patches"] = (*model.grid, *conv.kernel_size, conv.in_channels)
    seen["pooling"] = (tokens.shape[2],)
    seen["image"] = (*images.shape[2:], 3)
    return seen


@pytest.mark.parametrize("config", [PLAIN, GAP, HYBRID])
def test_the_steps_have_the_models_shapes(config):
    model = build(config).eval()
    seen = shapes_in(model, torch.zeros(1, 3, *config.image_hw))
    steps = {step.name: step.shape for step in token_steps(model)}
    assert {name: shape for name, shape in steps.items() if name != "feature map"} == {
        name: seen[name] for name in steps if name != "feature map"
    }
    assert ("feature map" in steps) == (config.resnet is not None)
    assert ("class token" in steps) == (config.head == "token")
    assert ("positions" in steps) == (config.position != "none")
    assert ("representation" in steps) == (config.representation is not None)


def test_a_hybrids_feature_map_has_the_stems_shape():
    model = build(HYBRID).eval()
    maps = []
    model.patch_embed.register_forward_pre_hook(lambda _, given: maps.append(given[0]))
    model.patch_embed.backbone.register_forward_hook(lambda _module, _given, out: maps.append(out))
    with torch.no_grad():
        model.embed(torch.zeros(1, 3, *HYBRID.image_hw))
    channels, height, width = maps[-1].shape[1:]
    assert {step.name: step.shape for step in token_steps(model)}["feature map"] == (height, width, channels)


def test_patches_are_the_images_pieces_in_raster_order():
    model = build(PLAIN)
    image = np.arange(8 * 18 * 3, dtype=np.uint16).astype(np.uint8).reshape(8, 18, 3)
    grid = patch_grid(model, image)
    assert grid.shape == (2, 3, 4, 6, 3)
    for row in range(2):
        for column in range(3):
            piece = image[4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
            assert np.array_equal(grid[row, column], piece)


def test_a_hybrids_patches_are_the_squares_of_its_tokens():
    grid = patch_grid(build(HYBRID), np.zeros((64, 32, 3), np.uint8))
    assert grid.shape[:2] == HYBRID.grid
    assert grid.shape[2:4] == HYBRID.token_hw


def test_wrong_images_and_models_are_refused():
    with pytest.raises(UserError, match=r"\(8, 18, 3\); resize"):
        patch_grid(build(PLAIN), np.zeros((18, 8, 3), np.uint8))
    with pytest.raises(UserError, match="not available for a ResNet"):
        token_steps(build(ResNetConfig((1,), 0.5, image_size=32, num_classes=2)))
