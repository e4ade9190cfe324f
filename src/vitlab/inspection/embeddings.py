"""What the embeddings have learned: filters of the patches, likeness of positions and of tokens (paper: Figure 7).

Shapes: B batch, N tokens, P patches, D width; X pixels of a patch times 3 colours, K components, T position tables;
C, H, W of images: channels, height, width.
"""

import torch
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.inspection.subject import NotApplicable, inspecting, placed, transformer
from vitlab.models.positions import ADDED
from vitlab.models.vit import VisionTransformer


def embedding_filters(model: nn.Module, components: int = 28) -> Tensor:
    """The principal components of the patch embedding's filters (paper: Figure 7, left).

    The D filters of the linear projection E (Eq. 1), each patch height x patch width x 3, are centred on
    their mean; the components are the directions of largest variance among them, largest first. A component's
    sign means nothing; its entry of largest size is made positive.

    Args:
        model: a plain Vision Transformer, whose patches are cut from the image itself.
        components: how many; the paper shows 28.

    Returns:
        (components, patch height, patch width, 3) in [0, 1], each component scaled on its own from its least
        to its largest value, on the CPU.

    Raises:
        UserError: a hybrid, a ResNet, or more components than there are.
    """
    vit = transformer(model, "embedding filters")
    if vit.config.resnet is not None:
        raise NotApplicable(
            f"embedding filters: a hybrid's patches are cut from feature maps of {vit.config.patch_channels} "
            "channels, not from images, so its filters have no colours; give a plain Vision Transformer"
        )
    most = available_components(vit)
    if not 1 <= components <= most:
        raise UserError(f"{components} components: this model's filters have 1 to {most}")
    with inspecting(vit):
        filters_DX = vit.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1).cpu().double()
        centred_DX = filters_DX - filters_DX.mean(0)
        directions_KX = torch.linalg.svd(centred_DX, full_matrices=False).Vh[:components]
        largest_K1 = directions_KX.abs().argmax(1, keepdim=True)
        directions_KX = directions_KX * directions_KX.gather(1, largest_K1).sign()
        least_K1 = directions_KX.min(1, keepdim=True).values
        range_K1 = directions_KX.max(1, keepdim=True).values - least_K1
        shown_KX = (directions_KX - least_K1) / range_K1.clamp_min(1e-12)
    filters_KHWC: Tensor = shown_KX.float().reshape(components, *vit.config.patch_hw, 3)
    return filters_KHWC


def available_components(vit: VisionTransformer) -> int:
    """How many principal components a plain model's filters have: D of them, centred, span D - 1 at most."""
    height, width = vit.config.patch_hw
    return min(vit.config.hidden - 1, 3 * height * width)


def position_similarity(model: nn.Module) -> Tensor:
    """How alike the position embeddings are (paper: Figures 7, centre, and 10).

    Args:
        model: a Vision Transformer with absolute positions: learned (of one or two dimensions) or fixed.
            Where every layer has a table of its own, the first layer's is taken. The class token's is left
            out.

    Returns:
        (rows, columns, rows, columns) on the CPU: [r, c] is the picture of the cosine similarity in [-1, 1]
        between the position of patch (r, c) and those of all patches.

    Raises:
        UserError: the model has no position embeddings: a ResNet, position="none" or "relative".
    """
    vit = transformer(model, "position similarity")
    with inspecting(vit):
        positions_1ND = vit.positions()
        if positions_1ND is None:
            raise NotApplicable(
                f"position similarity: a model with position='{vit.config.position}' has no position embeddings to "
                f"compare; give one with position={' or '.join(repr(name) for name in ADDED)}"
            )
        positions_PD = positions_1ND[0, vit.prefix_tokens :].cpu().double()
        unit_PD = torch.nn.functional.normalize(positions_PD, dim=1, eps=1e-12)
        similarity_PP = (unit_PD @ unit_PD.T).clamp(-1, 1)
    return similarity_PP.float().reshape(*vit.grid, *vit.grid)


def token_similarity(model: nn.Module, images: Tensor, depth: int) -> Tensor:
    """The cosine similarity of every two patches' tokens, after some of the layers (paper: Eq. 1 to 3).

    Args:
        model: a Vision Transformer of any kind.
        images: normalised, (batch, 3, height, width).
        depth: how many layers the tokens have been through; 0 is the encoder's input. Later layers are not computed.

    Returns:
        (batch, patches, patches) in [-1, 1], patches in raster order; the class token is left out.

    Raises:
        UserError: not a Vision Transformer, wrong images, or a depth that does not exist.
    """
    vit = transformer(model, "token similarity")
    if not 0 <= depth <= vit.config.layers:
        raise UserError(f"depth {depth}: the model has {vit.config.layers} layers; give 0 to {vit.config.layers}")
    images_BCHW = placed(vit, images)
    with inspecting(vit):
        tokens_BND = vit.embed(images_BCHW)
        for layer, block in zip(range(depth), vit.blocks, strict=False):
            tokens_BND = block(vit.layer_input(layer, tokens_BND))
        unit_BPD = torch.nn.functional.normalize(tokens_BND[:, vit.prefix_tokens :].double(), dim=2, eps=1e-12)
        similarity_BPP: Tensor = (unit_BPD @ unit_BPD.transpose(1, 2)).clamp(-1, 1).float()
    return similarity_BPP
