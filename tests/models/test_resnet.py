"""The BiT ResNet and its parts, against plain float64 and by their laws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitlab.errors import UserError
from vitlab.models import ResNetConfig, create_model
from vitlab.models.build import build, classifier, replace_head
from vitlab.models.resnet import ResNet, StandardisedConv2d, Unit, standardise

TINY = ResNetConfig((1, 2), 0.5, image_size=(32, 48), num_classes=3)


def randomised(config):
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_where_the_two_epsilons_stand(scale):
    weight = scale * torch.randn(4, 3, 5, 5, dtype=torch.float64)
    inside = standardise(weight, variance_eps=1e-10).numpy()
    beside = standardise(weight, deviation_eps=1e-5).numpy()
    for kernel, in_root, beside_root in zip(weight.numpy(), inside, beside, strict=True):
        centred = kernel - kernel.mean()
        np.testing.assert_allclose(in_root, centred / np.sqrt(kernel.var() + 1e-10), rtol=1e-12)
        np.testing.assert_allclose(beside_root, centred / (kernel.std() + 1e-5), rtol=1e-12)


def test_standardisation_is_exact_for_narrow_weights():
    weight = 3 + 0.01 * torch.randn(4, 3, 5, 5)
    narrow = weight.to(torch.bfloat16)
    wanted = standardise(narrow.double(), variance_eps=1e-10)
    assert standardise(narrow, variance_eps=1e-10).dtype == torch.bfloat16
    torch.testing.assert_close(standardise(narrow, variance_eps=1e-10).double(), wanted, rtol=0.01, atol=0.01)


def test_the_scale_of_kernels_does_not_matter():
    convolution = StandardisedConv2d(4, 8, 3)
    image = torch.randn(1, 4, 7, 7)
    before = convolution(image)
    with torch.no_grad():
        convolution.weight.mul_(7).add_(1)
    torch.testing.assert_close(convolution(image), before, rtol=1e-4, atol=1e-4)


def reference(model, image):
    """The forward pass in float64 from BiT's description, unit by unit."""
    w = {name: tensor.double() for name, tensor in model.state_dict().items()}

    def convolve(x, name, stride=1):
        kernel = w[name + ".weight"]
        mean, variance = kernel.mean((1, 2, 3), keepdim=True), kernel.var((1, 2, 3), correction=0, keepdim=True)
        kernel = (kernel - mean) / (variance + 1e-10).sqrt()
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def norm_relu(x, name):
        groups = x.reshape(1, 32, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        return (x * w[name + ".weight"][:, None, None] + w[name + ".bias"][:, None, None]).clamp(min=0)

    x = convolve(image.double()[None], "stem.conv", 2)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=0.0), 3, 2)
    for stage, count in enumerate(model.config.blocks):
        for unit in range(count):
            name = f"stages.{stage}.blocks.{unit}."
            stride = 2 if unit == 0 and stage else 1
            y = norm_relu(x, name + "norm1")
            shortcut = convolve(y, name + "downsample.conv", stride) if unit == 0 else x
            y = norm_relu(convolve(y, name + "conv1"), name + "norm2")
            y = norm_relu(convolve(y, name + "conv2", stride), name + "norm3")
            x = convolve(y, name + "conv3") + shortcut
    features = norm_relu(x, "norm").mean((2, 3))[0]
    return features @ w["head.fc.weight"][:, :, 0, 0].T + w["head.fc.bias"], features


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_agrees_with_the_plain_reference(size):
    model = randomised(TINY)
    image = torch.randn(3, *size)
    logits, features = reference(model, image)
    torch.testing.assert_close(model(image[None])[0].double(), logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.features(image[None])[0].double(), features, rtol=1e-3, atol=1e-3)


def test_names_are_timms():
    state = build(TINY).state_dict()
    units = ["stages.0.blocks.0.", "stages.1.blocks.0.", "stages.1.blocks.1."]
    names = {"stem.conv.weight", "norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    for unit in units:
        names |= {f"{unit}conv{number}.weight" for number in (1, 2, 3)}
        names |= {f"{unit}norm{number}.{kind}" for number in (1, 2, 3) for kind in ("weight", "bias")}
    names |= {f"{unit}downsample.conv.weight" for unit in units[:2]}
    assert set(state) == names
    assert state["head.fc.weight"].shape == (3, 256, 1, 1)


def test_groups_epsilon_and_start():
    model = build(TINY)
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-5)}
    assert not any(parameter.any() for parameter in model.head.parameters())


def test_a_new_head():
    model = randomised(TINY)
    model.classes = ("a", "b", "c")
    features = model.features(torch.ones(1, 3, 32, 48))
    replace_head(model, 9)
    final = classifier(model)
    assert isinstance(final, nn.Conv2d)
    assert model(torch.ones(1, 3, 32, 48)).tolist() == [[0.0] * 9]
    assert (model.config.num_classes, model.classes) == (9, None)
    assert torch.equal(model.features(torch.ones(1, 3, 32, 48)), features)
    headless = create_model(TINY, num_classes=0)
    assert headless(torch.ones(2, 3, 32, 48)).shape == (2, 256)
    assert classifier(headless) is None


def test_meta_device_then_memory():
    for config in (TINY, create_model(TINY, axial_heads=4).config):
        with torch.device("meta"):
            model = build(config)
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            nn.init.constant_(parameter, float("nan"))
        model.reset_parameters()
        assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_units_identity_shortcut_is_the_input_itself():
    unit = Unit(128, 32, 1)
    with torch.no_grad():
        unit.norm3.weight.zero_()
        unit.norm3.bias.zero_()
    image = torch.randn(1, 128, 4, 4)
    assert torch.equal(unit(image), image)


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_axial_resnet_halves_as_the_convolutional_one(size):
    config = create_model(TINY, axial_heads=4, image_size=size).config
    model = randomised(config)
    assert isinstance(model, ResNet)
    plain = build(create_model(TINY, image_size=size).config)
    image = torch.randn(1, 3, *size)
    stem = F.max_pool2d(F.pad(model.stem(image), (1, 1, 1, 1)), 3, 2)
    for ours, theirs in zip(model.stages, plain.stages, strict=True):
        assert ours(stem).shape == theirs(stem).shape
        stem = ours(stem)
    assert stem.shape[2:] == config.stage_hw(1)
    assert not any(isinstance(m, StandardisedConv2d) and m.kernel_size == (3, 3) for m in model.modules())


def test_axial_resnet_refuses_other_sizes():
    with pytest.raises(UserError, match="32x32"):
        create_model(TINY, axial_heads=4)(torch.zeros(1, 3, 32, 32))


def test_precision_and_compile():
    for heads in (None, 4):
        model = randomised(create_model(TINY, blocks=(1,), axial_heads=heads).config)
        images = torch.randn(2, 3, 32, 48)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images))
        assert model.to(torch.bfloat16)(images).dtype == torch.bfloat16
