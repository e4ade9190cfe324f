"""Where a Vision Transformer attends: attention maps, their distance, and their rollout (paper: section 4.5).

Training and evaluation use fused attention, which never forms the maps. Here they are computed a layer at a
time, from the same tokens, so that memory does not grow with depth.

Shapes: B batch, L layers, H heads, N tokens (class token included), P patches, D width; C, H, W of images:
channels, height, width.
"""

from collections.abc import Collection, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.inspection.subject import attending, inspecting, placed
from vitlab.models.layers import Block
from vitlab.models.positions import raster
from vitlab.models.vit import VisionTransformer

ClassToken = Literal["drop", "renormalise"]
MAP_BYTES = 64 * 2**20  # of the maps that distance and rollout hold at a time


def attention_maps(
    model: nn.Module, images: Tensor, layers: Collection[int] | None = None
) -> Iterator[tuple[int, Tensor]]:
    """What every token attends to, layer by layer (paper: Eq. 6, softmax(q k^T / sqrt(D_h))).

    Maps are computed when asked for, and not kept here. Between two of them the model is in the mode the
    caller left it in.

    Args:
        model: a Vision Transformer whose tokens attend to all tokens.
        images: normalised, (batch, 3, height, width).
        layers: which ones, from 0; negative numbers count from the last. None: all.

    Returns:
        Iterator of (layer, maps), in rising order of layer; maps are (batch, heads, tokens, tokens), row i
        says how much token i takes from each token and sums to one. The class token comes first, then patches
        in raster order.

    Raises:
        UserError: a model without such maps, wrong images, or a layer that does not exist.
    """
    vit = attending(model, "attention maps")
    return _maps(vit, placed(vit, images), _chosen(vit, layers))


def attention_distance(model: nn.Module, images: Tensor, class_token: ClassToken = "drop") -> Tensor:
    """How far every head looks: the mean distance in the image between a query and what it attends to.

    d(layer, head) is the mean over images and patches i of sum_j A_ij * distance(i, j), the distance being
    that of the patches' centres in pixels of the input image (paper: section 4.5, Figures 7 and 11). The
    analogue in a convolution is the size of the receptive field.

    Args:
        model: a Vision Transformer whose tokens attend to all tokens, plain or hybrid.
        images: normalised, (batch, 3, height, width); the paper takes 128.
        class_token: the class token has no place, and the paper does not say what becomes of it. "drop"
            leaves its row and column out and keeps the other weights as they are, which counts attention to
            it as distance zero; "renormalise" then scales every row to sum to one. Without a class token both
            are the same.

    Returns:
        (layers, heads) in pixels, float64, on the CPU.

    Raises:
        UserError: a model without such maps, wrong images, or another `class_token`.
    """
    if class_token not in ("drop", "renormalise"):
        raise UserError(f"class_token='{class_token}': use 'drop' or 'renormalise'")
    vit = attending(model, "attention distance")
    images_BCHW = placed(vit, images)
    distances_PP = patch_distances(vit)
    sums_LH = torch.zeros(vit.config.layers, vit.config.heads, dtype=torch.float64)
    for chunk_BCHW in torch.split(images_BCHW, _images_at_a_time(vit)):
        for layer, maps_BHNN in attention_maps(vit, chunk_BCHW):
            maps_BHPP = maps_BHNN[:, :, vit.prefix_tokens :, vit.prefix_tokens :]
            reach_BHP = torch.einsum("bhij,ij->bhi", maps_BHPP, distances_PP.to(maps_BHPP))
            if class_token == "renormalise":
                reach_BHP = reach_BHP / maps_BHPP.sum(-1)
            sums_LH[layer] += reach_BHP.sum((0, 2)).cpu().double()
            del maps_BHNN, maps_BHPP  # before the next layer's maps are made
    return sums_LH / (len(images_BCHW) * len(distances_PP))


def attention_rollout(model: nn.Module, images: Tensor, residual: bool = True) -> Tensor:
    """How much of the output comes from each patch, followed through all layers (paper: Figures 6 and 14).

    Attention is averaged over heads, and the layers' matrices are multiplied: R_l = A_l R_(l-1). With
    `residual` each A_l is first (A_l + I) / 2, for the block's residual branch, as in the method that the
    paper cites (arXiv 2005.00928); without, it is the product that the paper's text describes. The result is
    the class token's row without its own column; in a model without class token, which averages all output
    tokens, the mean of all rows.

    Args:
        model: a Vision Transformer whose tokens attend to all tokens.
        images: normalised, (batch, 3, height, width); taken a few at a time.
        residual: whether to count the residual branches.

    Returns:
        (batch, rows, columns): shares of the output that come from each patch, as they are. They are not
        negative and sum to one less the class token's own share. To lay them over an image, scale up and
        divide by the largest.

    Raises:
        UserError: a model without such maps, or wrong images.
    """
    vit = attending(model, "attention rollout")
    images_BCHW = placed(vit, images)
    chunks = torch.split(images_BCHW, _images_at_a_time(vit))
    rows_BN = torch.cat([_rollout(vit, chunk_BCHW, residual=residual) for chunk_BCHW in chunks])
    return rows_BN[:, vit.prefix_tokens :].reshape(-1, *vit.grid)


def _rollout(vit: VisionTransformer, images_BCHW: Tensor, *, residual: bool) -> Tensor:
    """The output's mixture of input tokens, (batch, tokens); rows sum to one."""
    rollout_BNN: Tensor | None = None
    for _, maps_BHNN in attention_maps(vit, images_BCHW):
        mean_BNN = maps_BHNN.mean(1)
        del maps_BHNN  # before the next layer's maps are made
        if residual:
            # Rows of attention sum to one, so those of A + I sum to two.
            mean_BNN = (mean_BNN + torch.eye(mean_BNN.shape[-1]).to(mean_BNN)) / 2
        rollout_BNN = mean_BNN if rollout_BNN is None else mean_BNN @ rollout_BNN
    assert rollout_BNN is not None, "a configuration has a layer at least"
    return vit.pool(rollout_BNN)


def _maps(vit: VisionTransformer, images_BCHW: Tensor, layers: frozenset[int]) -> Iterator[tuple[int, Tensor]]:
    # The context is entered again for every step, so that it never holds while the caller has control.
    with inspecting(vit):
        tokens_BND = vit.embed(images_BCHW)
    last = max(layers, default=-1)
    for layer, block in zip(range(last + 1), vit.blocks, strict=False):
        assert isinstance(block, Block)
        with inspecting(vit):
            tokens_BND = vit.layer_input(layer, tokens_BND)
            maps = [block.attention_probabilities(tokens_BND)] if layer in layers else []
        if maps:
            yield layer, maps.pop()  # popped: only the caller holds it
        if layer < last:
            with inspecting(vit):
                tokens_BND = block(tokens_BND)


def _chosen(vit: VisionTransformer, layers: Collection[int] | None) -> frozenset[int]:
    depth = vit.config.layers
    if layers is None:
        return frozenset(range(depth))
    wrong = [layer for layer in layers if not -depth <= layer < depth]
    if wrong:
        raise UserError(f"layer {wrong[0]}: the model has {depth} layers, numbered 0 to {depth - 1}")
    return frozenset(layer % depth for layer in layers)


def _images_at_a_time(vit: VisionTransformer) -> int:
    bytes_of_one = 4 * vit.config.heads * vit.config.tokens**2
    return max(1, MAP_BYTES // bytes_of_one)


def patch_distances(vit: VisionTransformer) -> Tensor:
    """Pixels of the input image between the centres of every two patches, (patches, patches)."""
    height, width = vit.config.token_hw
    row_P, column_P = raster(vit.grid)
    places_P2 = torch.stack((row_P * height, column_P * width), dim=1).float()
    return torch.cdist(places_P2, places_P2, compute_mode="donot_use_mm_for_euclid_dist")
