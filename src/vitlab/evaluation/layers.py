"""Features from the output of any module of a model: which modules give features, and one row of them per image.

Shapes: B images, D width, N tokens, C channels, H W height and width of a map.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby

import torch
from torch import Tensor, nn

from vitlab.errors import UserError, unknown_name
from vitlab.models.build import Model
from vitlab.models.positions import RelativePositions
from vitlab.models.vit import VisionTransformer

# Two, because with a single image every axis of length 1 would pass for the batch.
TRIAL_IMAGES = 2
OnOutput = Callable[[str, nn.Module, object], None]


def check_layer(model: Model, layer: str, image_hw: tuple[int, int], device: torch.device) -> None:
    """Run the model, which is on `device`, on two empty images to find out whether a layer gives features.

    Raises:
        UserError: there is no such layer, it is not run, or its output is not a row, tokens or a map per image.
    """
    reasons: dict[str, str] = {}

    def note_refusal(name: str, module: nn.Module, output: object) -> None:
        reasons[name] = _refusal(module, output, TRIAL_IMAGES, model)

    modules = {name: module for name, module in model.named_modules() if name}
    _run(model, modules, note_refusal, torch.zeros(TRIAL_IMAGES, 3, *image_hw, device=device))
    good = [name for name in modules if not reasons.get(name, "not run")]
    outer = _listed(name for name in good if not isinstance(modules[name], nn.Dropout))
    listing = f"choose {outer}, or a module inside one of these"
    if layer not in modules:
        raise unknown_name("layer", layer, good, listing=listing)
    if layer not in reasons:
        raise UserError(f"layer '{layer}' is never called as a module in this model; {listing}")
    if reasons[layer]:
        raise UserError(f"layer '{layer}' gives no features: {reasons[layer]}; {listing}")


def layer_features(model: Model, layer: str, images_BCHW: Tensor) -> Tensor:
    """Features (B, D) of normalised images from the output of a layer; of a layer that is run twice, the last output.

    Tokens give the class token, or their mean if it is not among them; a map gives the mean over its positions.

    Args:
        model: any model.
        layer: one that `check_layer` accepts.
        images_BCHW: the model's input.
    """
    rows: list[Tensor] = []

    def collect(name: str, module: nn.Module, output: object) -> None:
        assert isinstance(output, Tensor)
        rows.append(_rows(output, model))

    _run(model, {layer: model.get_submodule(layer)}, collect, images_BCHW)
    return rows[-1]


def _run(model: Model, modules: Mapping[str, nn.Module], on_output: OnOutput, images_BCHW: Tensor) -> None:
    """One forward pass that hands every output of these modules to `on_output`; the hooks are removed afterwards."""

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda module, _, output: on_output(name, module, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in modules.items()]
    try:
        model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()


def _refusal(module: nn.Module, output: object, images: int, model: Model) -> str:
    """Why this output gives no features; empty if it does."""
    if not isinstance(output, Tensor) or isinstance(module, RelativePositions):
        return "its output is not a tensor of features"
    shape = " x ".join(map(str, output.shape))
    if output.ndim == 0 or len(output) != images:
        return f"its output has shape {shape} for {images} images: the first axis is not the number of images"
    if output.ndim in (2, 4) or (output.ndim == 3 and output.shape[1] in _lengths(model)):
        return ""
    return f"its output of shape {shape} is neither a row, nor tokens, nor a map per image"


def _lengths(model: Model) -> set[int]:
    """The possible numbers of tokens of an image: all, only the patches, or only the class token."""
    if not isinstance(model, VisionTransformer):
        return set()
    return {model.config.tokens, model.config.tokens - model.prefix_tokens, 1}


def _rows(output: Tensor, model: Model) -> Tensor:
    if output.ndim == 4:
        return output.mean((2, 3))
    if output.ndim == 2:
        return output
    assert isinstance(model, VisionTransformer)
    # The patch projection's output has no class token even if the model has one.
    with_token = model.prefix_tokens > 0 and output.shape[1] == model.config.tokens
    return output[:, 0] if with_token else output.mean(1)


def _listed(names: Iterable[str]) -> str:
    """The outermost names; numbered ones as "blocks.0 to blocks.11"."""
    outer: list[str] = []
    for name in names:  # a module comes before those inside it
        if not outer or not name.startswith(f"{outer[-1]}."):
            outer.append(name)
    runs = [list(run) for _, run in groupby(outer, lambda name: name.rstrip("0123456789"))]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
