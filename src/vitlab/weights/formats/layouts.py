"""How one framework's array becomes another's (paper facts: checkpoints), each way with its inverse.

Shapes: D width, H heads, E width of one head, I O input and output channels, K kernel side.
"""

import torch
from torch import Tensor


def transposed(kernel: Tensor) -> Tensor:
    """A dense kernel, (in, out) <-> (out, in)."""
    return kernel.mT if kernel.dim() == 2 else _refuse(kernel)


def conv_from_hwio(kernel_KKIO: Tensor) -> Tensor:
    """A convolution, (height, width, in, out) -> (out, in, height, width)."""
    return kernel_KKIO.permute(3, 2, 0, 1)


def conv_to_hwio(weight_OIKK: Tensor) -> Tensor:
    """The inverse of `conv_from_hwio`."""
    return weight_OIKK.permute(2, 3, 1, 0)


def flat(vector: Tensor) -> Tensor:
    """A vector that some files store as (1, 1, 1, C)."""
    return vector.reshape(-1)


def qkv_weight_from_flax(query_DHE: Tensor, key_DHE: Tensor, value_DHE: Tensor) -> Tensor:
    """Three kernels (D, H, E) -> one weight (3 D, D)."""
    return torch.cat([kernel.flatten(1).mT for kernel in (query_DHE, key_DHE, value_DHE)])


def qkv_bias_from_flax(query_HE: Tensor, key_HE: Tensor, value_HE: Tensor) -> Tensor:
    """Three biases (H, E) -> one of 3 D."""
    return torch.cat([bias.flatten() for bias in (query_HE, key_HE, value_HE)])


def qkv_weight_to_flax(weight_3DxD: Tensor, heads: int) -> tuple[Tensor, ...]:
    """The inverse of `qkv_weight_from_flax`."""
    return tuple(part.mT.reshape(part.shape[1], heads, -1) for part in weight_3DxD.chunk(3))


def qkv_bias_to_flax(bias_3D: Tensor, heads: int) -> tuple[Tensor, ...]:
    """The inverse of `qkv_bias_from_flax`."""
    return tuple(part.reshape(heads, -1) for part in bias_3D.chunk(3))


def out_weight_from_flax(kernel_HED: Tensor) -> Tensor:
    """The output projection, (H, E, D) -> (D, D)."""
    return kernel_HED.flatten(0, 1).mT


def out_weight_to_flax(weight_DD: Tensor, heads: int) -> Tensor:
    """The inverse of `out_weight_from_flax`."""
    return weight_DD.mT.reshape(heads, -1, weight_DD.shape[0])


def stacked(*sources: Tensor) -> Tensor:
    """Query, key and value of a format that keeps them apart, in this order, as one array."""
    return torch.cat(sources)


def without_class_row(positions_1PD: Tensor) -> Tensor:
    """Positions of the patches alone -> with a first row of zeros for a class token without a position."""
    return torch.cat((positions_1PD.new_zeros(1, 1, positions_1PD.shape[2]), positions_1PD), dim=1)


def scaled_rows(weight: Tensor, scale_D: Tensor) -> Tensor:
    """LayerScale folded into the projection before it: scale * (W x + b) = (scale W) x + scale b."""
    return weight * scale_D.reshape(-1, *(1,) * (weight.dim() - 1))


def _refuse(kernel: Tensor) -> Tensor:
    raise ValueError(f"a dense kernel of {kernel.dim()} dimensions")
