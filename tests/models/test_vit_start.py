"""How a model starts: every initialisation of the paper and the original's code, dropout, stochastic depth."""

import math

import pytest
import torch
from torch import nn

from vitlab.models import ViTConfig, create_model
from vitlab.models.build import build
from vitlab.models.layers import MLP, Attention, drop_path

CONFIG = ViTConfig(8, 192, 3, 384, 4, image_size=64, num_classes=10, representation=256)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return build(CONFIG)


def assert_truncated_normal(weight, fan_in):
    deviation = weight.std().item()
    assert deviation == pytest.approx(math.sqrt(1 / fan_in), rel=0.03)
    # A unit normal cut at 2 has deviation 0.8796: its largest value is 2 / 0.8796 deviations.
    assert 2.2 < weight.abs().max().item() * math.sqrt(fan_in) < 2.275


def assert_uniform(weight, bound):
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_patch_embedding(model):
    assert_truncated_normal(model.patch_embed.proj.weight, 3 * 8 * 8)
    assert not model.patch_embed.proj.bias.any()


def test_class_token_and_positions(model):
    assert not model.cls_token.any()
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.pos_embed.abs().max().item() > 0.06, "it is a normal that is not truncated"


def test_query_key_and_value_start_each_on_their_own(model):
    for block in model.blocks:
        for weight in block.attn.qkv.weight.chunk(3):
            assert_uniform(weight, math.sqrt(6 / (2 * 192)))
        assert_uniform(block.attn.proj.weight, math.sqrt(6 / (2 * 192)))
        assert not block.attn.qkv.bias.any()
        assert not block.attn.proj.bias.any()


def test_mlp(model):
    for block in model.blocks:
        for dense in (block.mlp.fc1, block.mlp.fc2):
            assert_uniform(dense.weight, math.sqrt(6 / (192 + 384)))
            assert dense.bias.std().item() == pytest.approx(1e-6, rel=0.2)


def test_norms(model):
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 7
    for norm in norms:
        assert norm.eps == 1e-6
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()


def test_head(model):
    assert_truncated_normal(model.pre_logits.weight, 192)
    assert not model.pre_logits.bias.any()
    assert not model.head.weight.any()
    assert not model.head.bias.any()


def test_layers_start_differently(model):
    assert not torch.equal(model.blocks[0].attn.qkv.weight, model.blocks[1].attn.qkv.weight)


def test_the_seed_decides():
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        states.append(create_model("ViT-Ti/16", layers=1).state_dict()["pos_embed"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.3)


def assert_dropped(dropped, kept, rate):
    """Every value is either zero or scaled up, zeros at about the rate."""
    zero = dropped == 0
    torch.testing.assert_close(dropped[~zero], kept[~zero] / (1 - rate))
    assert zero.float().mean().item() == pytest.approx(rate, abs=0.05)


def test_dropout_after_adding_positions():
    model = create_model(CONFIG, dropout=0.3)
    randomise(model)
    images = torch.randn(2, 3, 64, 64)
    dropped = model.train().embed(images)
    assert_dropped(dropped, model.eval().embed(images), 0.3)


def test_dropout_after_attentions_output_and_nowhere_within():
    attention = Attention(32, 4, dropout=0.3)
    randomise(attention)
    tokens = torch.randn(4, 20, 32)
    dropped = attention.train()(tokens)
    # Were probabilities or qkv dropped, the kept values would differ.
    assert_dropped(dropped, attention.eval()(tokens), 0.3)


def test_dropout_after_gelu_and_after_the_second_dense_layer():
    mlp = MLP(64, 64, dropout=0.3)
    with torch.no_grad():
        for dense in (mlp.fc1, mlp.fc2):
            dense.weight.copy_(torch.eye(64))
            dense.bias.zero_()
    tokens = torch.randn(4, 50, 64)
    dropped = mlp.train()(tokens)
    zero = dropped == 0
    torch.testing.assert_close(dropped[~zero], mlp.eval()(tokens)[~zero] / 0.7**2)
    assert zero.float().mean().item() == pytest.approx(1 - 0.7**2, abs=0.03)


def test_number_of_dropouts():
    model = create_model(CONFIG, dropout=0.1)
    calls = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(1, 3, 64, 64))
    assert len(calls) == 1 + 3 * CONFIG.layers


def test_evaluation_is_deterministic_and_training_is_not():
    model = create_model(CONFIG, dropout=0.1, drop_path=0.1)
    randomise(model)
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_stochastic_depth_rises_linearly():
    model = create_model(CONFIG, layers=5, drop_path=0.2)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    branch = torch.randn(4000, 3, 2)
    dropped = drop_path(branch, 0.25, training=True)
    gone = (dropped == 0).flatten(1).all(1)
    torch.testing.assert_close(dropped[~gone], branch[~gone] / 0.75)
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drop_path(branch, 0.25, training=False), branch)


def test_stochastic_depth_acts_on_both_branches():
    model = create_model(CONFIG, layers=2, drop_path=0.999999)
    randomise(model)
    block = model.blocks[1]
    tokens = torch.randn(2, 65, 192)
    assert torch.equal(block.train()(tokens), tokens)
    assert not torch.allclose(block.eval()(tokens), tokens)
