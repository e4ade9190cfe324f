"""Laws of every position variant, and the resizing of tables against scipy and the original."""

import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from vitlab.models import ResNetConfig, ViTConfig, create_model, positions
from vitlab.models.build import build
from vitlab.models.layers import Attention
from vitlab.models.positions import RelativePositions, resize_position_tensors, resize_positions, sincos_2d
from vitlab.recipes.configs import Position

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "position_interpolation.json").read_text())
BASE = ViTConfig(8, 16, 3, 24, 4, image_size=(16, 24), num_classes=5)  # a grid of 2 x 3


def randomised(config):
    model = build(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['from_grid']}-{case['to_grid']}")
def test_resize_equals_the_originals(case):
    prefix = int(case["class_token"])
    shape = (1, case["from_grid"] ** 2 + prefix, case["dim"])
    source = np.float32(np.random.RandomState(case["seed"]).standard_normal(shape))
    grids = ((case["from_grid"],) * 2, (case["to_grid"],) * 2)
    resized = resize_positions(torch.from_numpy(source), *grids, prefix)
    np.testing.assert_allclose(resized.numpy(), np.array(case["result"]).reshape(resized.shape), atol=1e-5)


@pytest.mark.parametrize(("start", "end"), [((7, 7), (12, 12)), ((3, 5), (6, 2)), ((4, 1), (2, 3)), ((5, 5), (1, 4))])
@pytest.mark.parametrize("prefix", [0, 1])
def test_resize_is_scipys_order_one_zoom(start, end, prefix):
    table = np.random.default_rng(0).standard_normal((2, prefix + start[0] * start[1], 6))
    resized = resize_positions(torch.from_numpy(table), start, end, prefix).numpy()
    for one, new in zip(table, resized, strict=True):
        grid = one[prefix:].reshape(*start, 6)
        wanted = zoom(grid, (end[0] / start[0], end[1] / start[1], 1), order=1)
        np.testing.assert_allclose(new[prefix:], wanted.reshape(-1, 6), atol=1e-12)
        np.testing.assert_array_equal(new[:prefix], one[:prefix])


def test_resize_keeps_the_dtype_and_to_the_same_grid_everything():
    table = torch.randn(1, 10, 4, dtype=torch.bfloat16)
    narrow = resize_positions(table, (3, 3), (7, 5), 1)
    assert narrow.dtype == torch.bfloat16
    assert torch.equal(narrow, resize_positions(table.double(), (3, 3), (7, 5), 1).to(torch.bfloat16))
    assert resize_positions(table, (3, 3), (3, 3), 1) is table


@pytest.mark.parametrize("position", ["learned", "learned2d", "relative", "sincos2d", "none"])
@pytest.mark.parametrize("head", ["token", "gap"])
def test_a_resized_state_fits_the_other_model(position, head):
    small = randomised(create_model(BASE, position=position, head=head).config)
    large = create_model(small.config, image_size=(40, 32))
    tensors = resize_position_tensors(small.state_dict(), small.config, large.config)
    large.load_state_dict(tensors)
    for name, tensor in small.state_dict().items():
        if "pos_embed" not in name and "relative" not in name:
            assert torch.equal(tensors[name], tensor)
    back = resize_position_tensors(small.state_dict(), small.config, small.config)
    assert all(torch.equal(back[name], tensor) for name, tensor in small.state_dict().items())


def test_resized_relative_tables_keep_their_ends_their_middle_and_the_class_token():
    config = create_model(BASE, position="relative").config
    table = randomised(config).state_dict()["blocks.1.attn.relative.table"]
    large = create_model(config, image_size=(40, 32)).config
    name = "blocks.1.attn.relative.table"
    resized = resize_position_tensors({name: table}, config, large)[name]
    assert resized.shape == (2 * 20 - 1 + 3, 4)
    for old, new in [(0, 0), (5, 19), (10, 38)]:
        torch.testing.assert_close(resized[new], table[old])
    assert torch.equal(resized[-3:], table[-3:])


def test_a_resized_axial_resnet_fits():
    config = ResNetConfig((2, 2), 0.5, image_size=(32, 48), num_classes=3, axial_heads=4)
    large = create_model(config, image_size=(64, 48))
    large.load_state_dict(resize_position_tensors(create_model(config).state_dict(), config, large.config))


def test_sincos_by_hand():
    table = sincos_2d((2, 3), 8).numpy()
    for row in range(2):
        for column in range(3):
            slow = 1 / 10_000
            wanted = [
                *(math.sin(column), math.sin(column * slow), math.cos(column), math.cos(column * slow)),
                *(math.sin(row), math.sin(row * slow), math.cos(row), math.cos(row * slow)),
            ]
            np.testing.assert_allclose(table[row * 3 + column], wanted, atol=1e-6)


def positions_of(model):
    """What each layer adds to tokens at zero, with the class token at zero too."""
    patches = torch.zeros(1, model.grid[0] * model.grid[1], model.config.hidden)
    if model.prefix_tokens:
        model.cls_token.data.zero_()
    at_input = model.arrange(patches)
    zero = torch.zeros_like(at_input)
    return at_input[0], [model.layer_input(layer, zero)[0] for layer in range(model.config.layers)]


@pytest.mark.parametrize("head", ["token", "gap"])
@pytest.mark.parametrize("position", ["learned", "learned2d", "sincos2d"])
def test_where_tables_are_added(position, head):
    at_input, by_layer = positions_of(randomised(create_model(BASE, position=position, head=head).config))
    assert at_input.any()
    assert not any(table.any() for table in by_layer)

    config = create_model(BASE, position=position, head=head, position_at="every_layer_shared").config
    at_input, by_layer = positions_of(randomised(config))
    assert not at_input.any()
    assert all(torch.equal(table, by_layer[0]) and table.any() for table in by_layer)


@pytest.mark.parametrize("position", ["learned", "learned2d"])
def test_every_layer_has_its_own_table(position):
    config = create_model(BASE, position=position, position_at="every_layer").config
    at_input, by_layer = positions_of(randomised(config))
    assert not at_input.any()
    assert not any(torch.allclose(by_layer[a], by_layer[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


def test_a_shared_table_at_every_layer_is_used_by_the_forward_pass():
    model = randomised(create_model(BASE, position_at="every_layer_shared").config)
    tokens = model.embed(torch.ones(1, 3, 16, 24))
    by_hand = tokens
    for block in model.blocks:
        by_hand = block(by_hand + model.pos_embed)
    torch.testing.assert_close(model.encode(tokens), model.norm(by_hand))


def test_two_dimensional_tables_tell_x_in_one_half_and_y_in_the_other():
    model = randomised(create_model(BASE, position="learned2d").config)
    table = positions_of(model)[0][1:].reshape(2, 3, 16)
    assert torch.equal(table[0, :, :8], table[1, :, :8])
    assert torch.equal(table[0, :, :8], model.pos_embed_column[0])
    assert torch.equal(table[:, 0, 8:], table[:, 1, 8:])
    assert torch.equal(table[:, 2, 8:], model.pos_embed_row[0])


def test_sincos_leaves_the_class_token_alone():
    model = create_model(BASE, position="sincos2d")
    table = positions_of(model)[0]
    assert not table[0].any()
    torch.testing.assert_close(table[1:], sincos_2d((2, 3), 16))


@pytest.mark.parametrize("prefix", [0, 1])
def test_relative_logits_pair_by_pair(prefix):
    relative = RelativePositions(4, 6, prefix)
    queries = torch.randn(2, 3, 4 + prefix, 6)
    logits = relative(queries)
    for query in range(4 + prefix):
        for key in range(4 + prefix):
            if prefix and query == key == 0:
                row = 9
            elif prefix and query == 0:
                row = 8
            elif prefix and key == 0:
                row = 7
            else:
                row = query - key + 3
            wanted = queries[:, :, query] @ relative.table[row] / math.sqrt(6)
            torch.testing.assert_close(logits[:, :, query, key], wanted)


def test_relative_attention_is_the_same_everywhere():
    """Where all tokens are alike, logits depend on the distance alone: log-probabilities differ as distances do."""
    attention = Attention(16, 4, relative=RelativePositions(7, 4))
    with torch.no_grad():
        attention.relative.table.normal_()
        logs = attention.probabilities(torch.randn(1, 1, 16).expand(1, 7, 16)).log()[0]
    relative_to_itself = logs - logs.diagonal(dim1=1, dim2=2)[:, :, None]
    for query in range(6):
        torch.testing.assert_close(
            relative_to_itself[:, query, :6], relative_to_itself[:, query + 1, 1:], atol=1e-5, rtol=1e-4
        )
    assert (relative_to_itself[:, 3, 0] - relative_to_itself[:, 3, 6]).abs().min() > 1e-3, "direction matters"


def test_fused_relative_attention_uses_its_probabilities():
    attention = Attention(16, 2, relative=RelativePositions(5, 8, prefix_tokens=1))
    with torch.no_grad():
        attention.relative.table.normal_()
        tokens = torch.randn(2, 6, 16)
        values = attention.qkv(tokens)[..., 32:].unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = (attention.probabilities(tokens) @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention(tokens), attention.proj(mixed))


def test_fewer_tokens_use_the_middle_of_the_table():
    relative = RelativePositions(7, 4)
    queries = torch.randn(1, 1, 7, 4)
    torch.testing.assert_close(relative(queries[:, :, :3]), relative(queries)[:, :, :3, :3])


def test_every_kind_of_position_stands_in_the_table_and_makes_its_own_tables():
    """Models, file formats and figures ask this table: a new kind is added there and nowhere else in these rooms."""
    assert set(positions.KINDS) == set(get_args(Position))
    for position, kind in positions.KINDS.items():
        config = ViTConfig(8, hidden=16, layers=2, mlp=16, heads=2, image_size=(16, 24), position=position)
        model = build(config)
        own = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(recurse=False)}
        assert own == {"cls_token": (1, 1, 16)} | positions.table_shapes(config)
        added = model.positions()
        assert (added is None) == (kind.vectors is None)
        assert added is None or added.shape == (1, config.tokens, 16)
        assert kind.by_distance == any("relative" in name for name in model.state_dict())
