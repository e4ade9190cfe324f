"""The model under inspection: what it must be, and how it is left."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.models.vit import VisionTransformer


class NotApplicable(UserError):
    """The request does not apply to this kind of model, such as attention maps of a ResNet."""


@contextmanager
def inspecting(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module is in the mode it was in.

    `no_grad`, not `inference_mode`: it costs the same here, and what comes out are ordinary tensors, which
    may be changed in place.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def transformer(model: nn.Module, what: str) -> VisionTransformer:
    """`model` as a Vision Transformer.

    Args:
        model: any model.
        what: the thing that is asked of it, for the error, such as "attention".

    Raises:
        NotApplicable: it is something else, such as a ResNet.
    """
    if isinstance(model, VisionTransformer):
        return model
    raise NotApplicable(f"{what}: not available for a {type(model).__name__}; give a Vision Transformer")


def attending(model: nn.Module, what: str) -> VisionTransformer:
    """`model` as a Vision Transformer in which every token attends to all tokens.

    Raises:
        NotApplicable: it is something else, such as a ResNet or an axial model.
    """
    vit = transformer(model, what)
    if vit.config.axial:
        raise NotApplicable(
            f"{what}: axial attention acts along rows and columns only, so there is no map from every "
            "token to every token; give a model with axial=False"
        )
    return vit


def placed(model: VisionTransformer, images_BCHW: Tensor) -> Tensor:
    """The images where the model is.

    Raises:
        UserError: not a batch of normalised colour images.
    """
    if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or not images_BCHW.is_floating_point():
        raise UserError(
            f"images of shape {tuple(images_BCHW.shape)} and {images_BCHW.dtype}: give normalised images as "
            "(batch, 3, height, width) in floating point"
        )
    if len(images_BCHW) == 0:
        raise UserError("no images: give at least one")
    return images_BCHW.to(model.patch_embed.proj.weight.device)
