"""The layers of every encoder: attention, MLP, block, and how they are initialised.

Shapes: B batch, N tokens, Q query tokens, D width, H heads, E width of one head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.models.positions import RelativePositions
from vitlab.recipes.configs import Gelu


def check_image_size(images_BCHW: Tensor, image_hw: tuple[int, int]) -> None:
    """Refuse images of another size than a model whose positions are made for `image_hw`."""
    if images_BCHW.shape[2:] != image_hw:
        found = tuple(images_BCHW.shape[2:])
        raise UserError(
            f"the images are {found[0]}x{found[1]} pixels (height x width), the model was built for "
            f"{image_hw[0]}x{image_hw[1]}: resize them, or load the model with image_size={found}"
        )


def empty_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose values are still to be set: torch's own initialisation would be overwritten."""
    device = torch.get_default_device()
    layer = nn.Linear(inputs, outputs, device="meta")
    return layer if device.type == "meta" else layer.to_empty(device=device)


def lecun_normal_(weight: Tensor) -> None:
    """Fill with a normal of variance 1 / fan-in, truncated at two standard deviations, as Flax does.

    The first axis is the output. Truncation narrows a unit normal to a deviation of 0.8796, which is divided
    out.
    """
    fan_in = weight[0].numel()
    deviation = math.sqrt(1 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=deviation, a=-2 * deviation, b=2 * deviation)


def drop_path(branch_BND: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth: drop a sample's branch with probability `rate`, else scale it up to keep the mean.

    Returns:
        The branch, of the same shape.
    """
    if not training or rate == 0:
        return branch_BND
    keep_B11 = branch_BND.new_empty(len(branch_BND), 1, 1).bernoulli_(1 - rate)
    return branch_BND * (keep_B11 / (1 - rate))


class Attention(nn.Module):
    """Multi-head self-attention (paper: App. A), with biases everywhere, as in the original's code.

    Args:
        width: D.
        heads: H; every head is D / H wide.
        dropout: rate after the output projection; attention probabilities are never dropped.
        relative: relative positions whose logits are added to those of the content (App. D.4).
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0, relative: RelativePositions | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = empty_linear(width, 3 * width)
        self.proj = empty_linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.relative = relative
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform, bound sqrt(6 / 2D) for each of q, k and v: not for the three as one matrix."""
        for weight_DD in self.qkv.weight.chunk(3):
            nn.init.xavier_uniform_(weight_DD)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)
        if self.relative is not None:
            self.relative.reset_parameters()

    def _queries_keys_values(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BND, k_BND, v_BND = self.qkv(tokens_BND).chunk(3, dim=-1)
        return self._by_head(q_BND), self._by_head(k_BND), self._by_head(v_BND)

    def _by_head(self, tokens_BND: Tensor) -> Tensor:
        """A view: (batch, heads, tokens, width of a head). Cut last, so that gradients come together without a copy."""
        batch, tokens, width = tokens_BND.shape
        return tokens_BND.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, tokens_BND: Tensor, queries: int | None = None) -> Tensor:
        """The attended tokens, (batch, tokens, width); of the first `queries` tokens only, where that is given."""
        if queries is not None:
            return self._of_first(tokens_BND, queries)
        q_BHNE, k_BHNE, v_BHNE = self._queries_keys_values(tokens_BND)
        bias_BHNN = self.relative(q_BHNE) if self.relative is not None else None
        mixed_BHNE = F.scaled_dot_product_attention(q_BHNE, k_BHNE, v_BHNE, attn_mask=bias_BHNN)
        out_BND: Tensor = self.dropout(self.proj(mixed_BHNE.transpose(1, 2).flatten(2)))
        return out_BND

    def _of_first(self, tokens_BND: Tensor, queries: int) -> Tensor:
        """Queries of the first Q tokens only; keys and values of all. Without relative positions."""
        assert self.relative is None
        width = tokens_BND.shape[-1]
        q_BQD = F.linear(tokens_BND[:, :queries], self.qkv.weight[:width], self.qkv.bias[:width])
        kv_BNX = F.linear(tokens_BND, self.qkv.weight[width:], self.qkv.bias[width:])
        k_BND, v_BND = kv_BNX.chunk(2, dim=-1)
        by_head = self._by_head(q_BQD), self._by_head(k_BND), self._by_head(v_BND)
        mixed_BHQE = F.scaled_dot_product_attention(*by_head)
        out_BQD: Tensor = self.dropout(self.proj(mixed_BHQE.transpose(1, 2).flatten(2)))
        return out_BQD

    def probabilities(self, tokens_BND: Tensor) -> Tensor:
        """How much every token (row) attends to each (column): (batch, heads, tokens, tokens), at least in float32."""
        q_BHNE, k_BHNE, _ = self._queries_keys_values(tokens_BND)
        logits_BHNN = (q_BHNE / math.sqrt(q_BHNE.shape[-1])) @ k_BHNE.transpose(-2, -1)
        if self.relative is not None:
            logits_BHNN = logits_BHNN + self.relative(q_BHNE)
        return logits_BHNN.softmax(-1, dtype=torch.promote_types(logits_BHNN.dtype, torch.float32))


class MLP(nn.Module):
    """Two dense layers with a GELU between, dropout after both (paper: section 3.1, App. B.1)."""

    def __init__(self, width: int, hidden: int, gelu: Gelu = "tanh", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = empty_linear(width, hidden)
        self.act = nn.GELU(approximate="tanh" if gelu == "tanh" else "none")
        self.fc2 = empty_linear(hidden, width)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights; biases from a normal of deviation 1e-6, as in the original's code."""
        for dense in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.normal_(dense.bias, std=1e-6)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Every token on its own, (batch, tokens, width)."""
        out_BND: Tensor = self.dropout(self.fc2(self.dropout(self.act(self.fc1(tokens_BND)))))
        return out_BND


class Block(nn.Module):
    """One encoder layer: attention, then MLP, each after a norm and with a residual (paper: Eq. 2 and 3).

    Args:
        width: D.
        mlp: hidden width of the MLP.
        heads: attention heads.
        gelu: of the MLP.
        dropout: rate after the dense layers, except qkv.
        drop_path: probability of leaving out a residual branch of a sample while training.
        norm_eps: of the layer norms.
        relative: relative positions, see Attention.
    """

    def __init__(
        self, width: int, mlp: int, heads: int, *,
        gelu: Gelu = "tanh", dropout: float = 0.0, drop_path: float = 0.0, norm_eps: float = 1e-6,
        relative: RelativePositions | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, dropout, relative)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, mlp, gelu, dropout)

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for part in (self.norm1, self.attn, self.norm2, self.mlp):
            part.reset_parameters()

    def forward(self, tokens_BND: Tensor, queries: int | None = None) -> Tensor:
        """The layer's output tokens, (batch, tokens, width); the first `queries` of them only, where that is given."""
        attended_BND = self.attn(self.norm1(tokens_BND), queries)
        tokens_BND = tokens_BND[:, :queries] + drop_path(attended_BND, self.drop_path, self.training)
        return tokens_BND + drop_path(self.mlp(self.norm2(tokens_BND)), self.drop_path, self.training)

    def attention_probabilities(self, tokens_BND: Tensor) -> Tensor:
        """The attention that `forward` would use on these tokens: (batch, heads, tokens, tokens)."""
        return self.attn.probabilities(self.norm1(tokens_BND))
