"""The hybrid's stem: XLA's padding, post-activation units, sizes, start, against plain float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitlab.models import ResNetStem, ViTConfig, create_model
from vitlab.models.build import build
from vitlab.models.hybrid import Backbone, PostUnit, same_padding


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "wanted"),
    [
        (224, 7, 2, (2, 3)),
        (112, 3, 2, (0, 1)),
        (56, 3, 1, (1, 1)),
        (56, 1, 2, (0, 0)),
        (225, 7, 2, (3, 3)),
        (113, 3, 2, (1, 1)),
    ],
)
def test_same_padding_by_hand(size, kernel, stride, wanted):
    assert same_padding(size, kernel, stride) == wanted


def reference(stem, image):
    """The forward pass in float64 from the paper's description, unit by unit."""
    w = {name: tensor.double() for name, tensor in stem.state_dict().items()}

    def pad(x, kernel, stride, value):
        height, width = x.shape[2:]
        (top, bottom), (left, right) = same_padding(height, kernel, stride), same_padding(width, kernel, stride)
        return F.pad(x, (left, right, top, bottom), value=value)

    def convolve(x, name, stride=1):
        kernel = w[name + ".weight"]
        mean, deviation = kernel.mean((1, 2, 3), keepdim=True), kernel.std((1, 2, 3), correction=0, keepdim=True)
        return F.conv2d(pad(x, kernel.shape[-1], stride, 0.0), (kernel - mean) / (deviation + 1e-5), stride=stride)

    def norm(x, name):
        groups = x.reshape(1, 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        x = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
        return x * w[name + ".weight"][:, None, None] + w[name + ".bias"][:, None, None]

    x = norm(convolve(image.double()[None], "stem.conv", 2), "stem.norm").relu()
    x = F.max_pool2d(pad(x, 3, 2, -1e9), 3, 2)
    for stage, units in enumerate(stem.stages):
        for unit in range(len(units.blocks)):
            name = f"stages.{stage}.blocks.{unit}."
            stride = 2 if unit == 0 and stage else 1
            shortcut = x
            if unit == 0:
                shortcut = norm(convolve(x, name + "downsample.conv", stride), name + "downsample.norm")
            y = norm(convolve(x, name + "conv1"), name + "norm1").relu()
            y = norm(convolve(y, name + "conv2", stride), name + "norm2").relu()
            x = (norm(convolve(y, name + "conv3"), name + "norm3") + shortcut).relu()
    return x[0]


@pytest.mark.parametrize("blocks", [(), (2,), (1, 2)])
def test_agrees_with_the_plain_reference(blocks):
    stem = Backbone(ResNetStem(blocks, 0.5))
    with torch.no_grad():
        for parameter in stem.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    image = torch.randn(3, 32, 48)
    torch.testing.assert_close(stem(image[None])[0].double(), reference(stem, image), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("blocks", "channels", "stride"), [((), 32, 4), ((1,), 128, 4), ((1, 1, 1), 512, 16), ((1, 1, 1, 1), 1024, 32)]
)
def test_both_ways_to_a_hybrid_are_a_matter_of_blocks(blocks, channels, stride):
    config = ResNetStem(blocks, 0.5)
    assert (config.channels, config.stride) == (channels, stride)
    assert Backbone(config)(torch.randn(1, 3, 64, 96)).shape == (1, channels, 64 // stride, 96 // stride)


def test_units_start_silent():
    unit = PostUnit(128, 32, 1)
    image = torch.randn(2, 128, 4, 4)
    torch.testing.assert_close(unit(image), image.relu())
    assert unit.downsample is None


def test_groups_and_epsilon():
    norms = [module for module in Backbone(ResNetStem((1, 1), 0.5)).modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-6)}


def test_the_stems_map_is_what_is_cut_into_patches():
    config = ViTConfig((1, 2), 16, 1, 24, 4, image_size=(32, 48), num_classes=3, resnet=ResNetStem((1, 1), 0.5))
    model = build(config)
    images = torch.randn(2, 3, 32, 48)
    patches = model.patch_embed(images)
    by_hand = model.patch_embed.proj(model.patch_embed.backbone(images))
    assert by_hand.shape == (2, 16, *config.grid) == (2, 16, 4, 3)
    torch.testing.assert_close(patches, by_hand.flatten(2).transpose(1, 2))


def test_names_are_timms():
    state = create_model("R26+ViT-S/32", resnet=ResNetStem((2, 1), 0.5), image_size=32, layers=1).state_dict()
    names = {name.removeprefix("patch_embed.backbone.") for name in state if ".backbone." in name}
    norms = [f"stages.0.blocks.1.norm{number}.{kind}" for number in (1, 2, 3) for kind in ("weight", "bias")]
    convolutions = [f"stages.0.blocks.1.conv{number}.weight" for number in (1, 2, 3)]
    assert {*norms, *convolutions, "stem.conv.weight", "stem.norm.weight", "stem.norm.bias"} < names
    assert {"stages.1.blocks.0.downsample.conv.weight", "stages.1.blocks.0.downsample.norm.bias"} < names
    assert not any(name.startswith("stages.0.blocks.1.downsample") for name in names)
