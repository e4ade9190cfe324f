"""Axial attention is full attention under a mask, and everything else stays in place."""

import pytest
import torch

from vitlab.errors import UserError
from vitlab.models import ViTConfig
from vitlab.models.axial import AxialAttention
from vitlab.models.build import build

CONFIG = ViTConfig(8, 16, 2, 24, 4, image_size=(24, 32), num_classes=3, head="gap", position="none", axial=True)


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.eval()


def masked(block, tokens, same):
    """An ordinary block whose tokens attend where `same` says."""
    attn, x = block.attn, block.norm1(tokens)
    q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in attn.qkv(x).chunk(3, dim=-1))
    logits = (q @ k.transpose(2, 3) / 2).masked_fill(~same, float("-inf"))
    tokens = tokens + attn.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))
    return tokens + block.mlp(block.norm2(tokens))


def test_a_block_is_rows_then_columns():
    block = randomised(build(CONFIG)).blocks[0]
    tokens = torch.randn(2, 12, 16)
    row, column = torch.arange(12) // 4, torch.arange(12) % 4
    wanted = masked(block.row, tokens, row[:, None] == row)
    wanted = masked(block.column, wanted, column[:, None] == column)
    torch.testing.assert_close(block(tokens), wanted)


def test_two_steps_reach_every_token():
    model = randomised(build(CONFIG))
    tokens = torch.randn(1, 12, 16, requires_grad=True)
    model.blocks[0](tokens)[0, 5].sum().backward()
    assert (tokens.grad[0].abs().sum(1) > 0).all()


def test_axial_attention_is_columns_then_rows_with_relative_positions():
    attention = randomised(AxialAttention(16, 4, (3, 5)))
    image = torch.randn(2, 16, 3, 5)
    columns = torch.stack([attention.column(image[:, :, :, c].transpose(1, 2)) for c in range(5)], dim=2)
    rows = torch.stack([attention.row(columns[:, r]) for r in range(3)], dim=1)
    torch.testing.assert_close(attention(image), rows.permute(0, 3, 1, 2))
    assert attention.column.relative.patches == 3
    assert attention.row.relative.patches == 5


def test_a_stride_averages_after_the_attention():
    attention = randomised(AxialAttention(16, 4, (4, 5)))
    image = torch.randn(1, 16, 4, 5)
    whole = attention(image)
    attention.stride = 2
    halved = attention(image)
    assert halved.shape == (1, 16, 2, 3)
    torch.testing.assert_close(halved[:, :, 0, 0], whole[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(halved[:, :, 1, 2], whole[:, :, 2:, 4:].mean((2, 3)))


def test_attention_maps_are_refused():
    with pytest.raises(UserError, match="axial"):
        build(CONFIG).blocks[0].attention_probabilities(torch.zeros(1, 12, 16))
