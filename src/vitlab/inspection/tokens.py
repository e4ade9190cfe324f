"""How alike an image's tokens are inside a Vision Transformer.

Shapes: B batch, N tokens, P patches, D width; C, H, W of images: channels, height, width.
"""

import torch
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.inspection.subject import inspecting, placed, transformer


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
