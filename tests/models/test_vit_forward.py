"""The forward pass against a second implementation, written plainly in float64 from the paper's equations."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from vitlab.errors import UserError
from vitlab.models import ResNetStem, ViTConfig, create_model
from vitlab.models.build import build, classifier, replace_head
from vitlab.models.vit import PatchEmbed
from vitlab.recipes.zoo import configure

TINY = ViTConfig((8, 4), 16, 2, 24, 4, image_size=(24, 16), num_classes=5)


def randomised(config, seed=0):
    """A model none of whose parameters is at a special value, in evaluation mode."""
    torch.manual_seed(seed)
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def layer_norm(x, scale, shift):
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * scale + shift


def gelu(x, kind):
    if kind == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def attention(x, weights, prefix, heads):
    """Head by head, query by query."""
    width = x.shape[-1]
    each = width // heads
    qkv, bias = weights[prefix + "qkv.weight"], weights[prefix + "qkv.bias"]
    q, k, v = (x @ qkv[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width] for i in range(3))
    mixed, probabilities = np.zeros_like(x), np.zeros((heads, len(x), len(x)))
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        for query in range(len(x)):
            logits = np.array([q[query, part] @ k[key, part] for key in range(len(x))]) / math.sqrt(each)
            exponentials = np.exp(logits - logits.max())
            probabilities[head, query] = exponentials / exponentials.sum()
            mixed[query, part] = sum(p * v[key, part] for key, p in enumerate(probabilities[head, query]))
    return mixed @ weights[prefix + "proj.weight"].T + weights[prefix + "proj.bias"], probabilities


def reference(model, image):
    """Logits, features and attention of one image (3, H, W), by the paper's Eq. 1 to 4."""
    config = model.config
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    image, (ph, pw), (rows, columns) = image.double().numpy(), config.patch_hw, config.grid
    patches = [image[:, r * ph : (r + 1) * ph, c * pw : (c + 1) * pw] for r in range(rows) for c in range(columns)]
    kernel = w["patch_embed.proj.weight"]
    z = np.stack([(kernel * patch).sum((1, 2, 3)) for patch in patches]) + w["patch_embed.proj.bias"]
    if config.head == "token":
        z = np.concatenate([w["cls_token"][0], z])
    z = z + w["pos_embed"][0]
    maps = []
    for layer in range(config.layers):
        b = f"blocks.{layer}."
        x = layer_norm(z, w[b + "norm1.weight"], w[b + "norm1.bias"])
        update, probabilities = attention(x, w, b + "attn.", config.heads)
        maps.append(probabilities)
        z = z + update
        x = layer_norm(z, w[b + "norm2.weight"], w[b + "norm2.bias"])
        x = gelu(x @ w[b + "mlp.fc1.weight"].T + w[b + "mlp.fc1.bias"], config.gelu)
        z = z + x @ w[b + "mlp.fc2.weight"].T + w[b + "mlp.fc2.bias"]
    z = layer_norm(z, w["norm.weight"], w["norm.bias"])
    y = z[0] if config.head == "token" else z.mean(0)
    if config.representation:
        y = np.tanh(y @ w["pre_logits.weight"].T + w["pre_logits.bias"])
    return y @ w["head.weight"].T + w["head.bias"], y, np.stack(maps)


@pytest.mark.parametrize(
    "options", [{}, {"head": "gap"}, {"representation": 12}, {"gelu": "erf"}, {"patch": 8, "heads": 1}], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_the_plain_reference(options, dtype):
    model = randomised(configure(TINY, options)).to(dtype)
    images = torch.randn(2, 3, 24, 16, dtype=dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    with torch.no_grad():
        logits, features, tokens = model(images), model.features(images), model.embed(images)
        maps = []
        for layer, block in enumerate(model.blocks):
            tokens = model.layer_input(layer, tokens)
            maps.append(block.attention_probabilities(tokens))
            tokens = block(tokens)
    for number, image in enumerate(images):
        wanted_logits, wanted_features, wanted_maps = reference(model, image)
        np.testing.assert_allclose(logits[number].numpy(), wanted_logits, **tolerance)
        np.testing.assert_allclose(features[number].numpy(), wanted_features, **tolerance)
        np.testing.assert_allclose(torch.stack(maps)[:, number].numpy(), wanted_maps, **tolerance)


@pytest.mark.parametrize("channels", [3, 8])
def test_patches_are_projected_as_by_a_convolution(channels):
    embed = PatchEmbed(TINY)
    embed.proj = nn.Conv2d(channels, 16, (8, 4), stride=(8, 4))
    images = torch.randn(2, channels, 24, 16)
    torch.testing.assert_close(embed(images), embed.proj(images).flatten(2).transpose(1, 2))


def test_state_dict_has_timms_keys():
    block = [
        f"blocks.0.{part}.{kind}"
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ]
    ends = ["patch_embed.proj", "norm", "pre_logits", "head"]
    names = {"cls_token", "pos_embed", *block, *(f"{end}.{kind}" for end in ends for kind in ("weight", "bias"))}
    state = create_model(TINY, layers=1, representation=8).state_dict()
    assert set(state) == names
    assert state["pos_embed"].shape == (1, 13, 16)
    assert state["patch_embed.proj.weight"].shape == (16, 3, 8, 4)
    assert create_model(TINY, head="gap").state_dict()["pos_embed"].shape == (1, 12, 16)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"16x24 pixels.*24x16"):
        create_model(TINY)(torch.zeros(1, 3, 16, 24))


def test_without_positions_and_class_token_patches_are_a_bag():
    model = randomised(ViTConfig(8, 16, 2, 24, 4, image_size=24, num_classes=5, head="gap", position="none"))
    tokens = torch.randn(2, 9, 16)
    order = torch.randperm(9)
    torch.testing.assert_close(model.encode(tokens[:, order]), model.encode(tokens)[:, order])
    patches = torch.randn(2, 9, 16)
    torch.testing.assert_close(
        model.encode(model.arrange(patches[:, order])).mean(1), model.encode(model.arrange(patches)).mean(1)
    )
    placed = randomised(ViTConfig(8, 16, 2, 24, 4, image_size=24, num_classes=5, head="gap"))
    pooled = placed.encode(placed.arrange(patches)).mean(1)
    assert (placed.encode(placed.arrange(patches[:, order])).mean(1) - pooled).abs().max() > 1e-3


def test_samples_do_not_see_each_other():
    model = randomised(TINY)
    images = torch.randn(3, 3, 24, 16)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]))


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        ViTConfig(8, 16, 2, 24, 4, image_size=(16, 24), num_classes=5, position="relative"),
        ViTConfig(8, 16, 2, 24, 4, image_size=(16, 24), num_classes=5, position="sincos2d", position_at="every_layer"),
        ViTConfig(8, 16, 2, 24, 4, image_size=(16, 24), num_classes=5, position="learned2d", head="gap", axial=True),
        ViTConfig(1, 16, 2, 24, 4, image_size=32, num_classes=5, resnet=ResNetStem((1, 1), 0.5)),
    ],
    ids=["plain", "relative", "sincos2d", "axial", "hybrid"],
)
class TestPrecision:
    def test_pure_bfloat16_weights_keep_the_stream_in_bfloat16(self, config):
        model = randomised(config)
        images = torch.randn(2, 3, *config.image_hw)
        wanted = model(images)
        model.to(torch.bfloat16)
        tokens = model.embed(images)
        stream = model.blocks[0](model.layer_input(0, tokens))
        logits = model(images)
        assert tokens.dtype == stream.dtype == logits.dtype == torch.bfloat16
        torch.testing.assert_close(logits.float(), wanted, rtol=0.1, atol=0.25)

    def test_autocast_does_not_promote_the_stream(self, config):
        model = randomised(config)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = model.embed(torch.randn(2, 3, *config.image_hw))
            stream = model.blocks[0](model.layer_input(0, tokens))
        assert tokens.dtype == stream.dtype == torch.bfloat16

    def test_compiles_as_one_graph(self, config):
        model = randomised(config)
        images = torch.randn(2, 3, *config.image_hw)
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images))

    def test_meta_device_then_memory(self, config):
        with torch.device("meta"):
            model = build(config)
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            nn.init.constant_(parameter, float("nan"))
        model.reset_parameters()
        assert all(parameter.isfinite().all() for parameter in model.parameters())
        assert not list(model.buffers())


def test_a_new_head_is_linear_at_zero_and_replaces_the_hidden_layer():
    model = randomised(ViTConfig(8, 16, 1, 24, 4, image_size=16, num_classes=5, representation=12))
    model.to(torch.float64)
    model.classes = ("a", "b", "c", "d", "e")
    before = model.encode(model.embed(torch.ones(1, 3, 16, 16)))
    replace_head(model, 7)
    assert (model.config.num_classes, model.config.representation, model.classes) == (7, None, None)
    final = classifier(model)
    assert isinstance(final, nn.Linear)
    assert final.weight.shape == (7, 16)
    assert final.weight.dtype == torch.float64
    assert not final.weight.any()
    assert not final.bias.any()
    torch.testing.assert_close(model.features(torch.ones(1, 3, 16, 16)), before[:, 0])
    assert "pre_logits.weight" not in model.state_dict()


def test_a_model_without_classes_gives_its_features():
    model = create_model(TINY, num_classes=0)
    images = torch.randn(2, 3, 24, 16)
    assert classifier(model) is None
    assert torch.equal(model(images), model.features(images))


@pytest.mark.parametrize("options", [{}, {"position_at": "every_layer"}, {"position": "learned2d"}, {"layers": 1}])
def test_the_last_block_may_leave_out_what_the_head_does_not_see(options):
    """The class token, the logits and every gradient, in float64, beside all tokens worked out in full."""
    config = replace(TINY, **options)
    model = randomised(config).double()
    images = torch.randn(3, 3, *config.image_hw, dtype=torch.float64)
    full = model.encode(model.embed(images))
    short = model.encode(model.embed(images), class_token_only=True)
    assert short.shape == (3, 1, config.hidden)
    torch.testing.assert_close(short[:, 0], full[:, 0], rtol=0, atol=1e-12)
    grads = []
    for logits in (model(images), model.head(full[:, 0])):
        model.zero_grad()
        logits.square().sum().backward()
        grads.append({name: value.grad.clone() for name, value in model.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-9, atol=1e-12)


def test_relative_positions_need_all_tokens():
    model = randomised(replace(TINY, position="relative"))
    images = torch.randn(2, 3, *TINY.image_hw)
    assert model.encode(model.embed(images), class_token_only=True).shape[1] == TINY.tokens


@pytest.mark.parametrize("options", [{}, {"head": "gap"}, {"axial": True, "head": "gap"}], ids=str)
def test_no_images_are_no_answers_and_no_gradients(options):
    """A part of a batch may be empty, where images could not be read."""
    model = build(replace(TINY, **options))
    logits_BK = model(torch.empty(0, 3, 24, 16))
    assert logits_BK.shape == (0, 5)
    logits_BK.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
