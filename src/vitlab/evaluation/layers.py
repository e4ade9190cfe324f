"""The output of any part of a model as features: which parts can be taken, and one row for each image of what they say.

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

# With a single image, an axis that is a multiple of the number of images would pass for one of as many.
TRIAL_IMAGES = 2
Look = Callable[[str, nn.Module, object], None]


def check_layer(model: Model, layer: str, image_hw: tuple[int, int], device: torch.device) -> None:
    """Run the model, which is on `device`, on two empty images, to see whether features can be taken from a layer.

    Raises:
        UserError: there is no such layer, it is not run, or its output is not a row, tokens or a map for each image.
    """
    reasons: dict[str, str] = {}

    def look(name: str, part: nn.Module, output: object) -> None:
        reasons[name] = _refusal(part, output, TRIAL_IMAGES, model)

    parts = {name: part for name, part in model.named_modules() if name}
    _run(model, parts, look, torch.zeros(TRIAL_IMAGES, 3, *image_hw, device=device))
    good = [name for name in parts if not reasons.get(name, "not run")]
    listing = f"take {_listed(name for name in good if not isinstance(parts[name], nn.Dropout))}, or a part of these"
    if layer not in parts:
        raise unknown_name("layer", layer, good, listing=listing)
    if layer not in reasons:
        raise UserError(f"layer '{layer}' is never run as a part of its own in this model: {listing}")
    if reasons[layer]:
        raise UserError(f"layer '{layer}' gives no features: {reasons[layer]}; {listing}")


def layer_features(model: Model, layer: str, images_BCHW: Tensor) -> Tensor:
    """A row (B, D) for each normalised image from the output of a layer; where it is run twice, from the last one.

    Of tokens the class token is taken, or their mean where it is not among them; of a map the mean over its places.

    Args:
        model: any.
        layer: one that `check_layer` does not refuse.
        images_BCHW: for the model.
    """
    rows: list[Tensor] = []

    def look(name: str, part: nn.Module, output: object) -> None:
        assert isinstance(output, Tensor)
        rows.append(_rows(output, model))

    _run(model, {layer: model.get_submodule(layer)}, look, images_BCHW)
    return rows[-1]


def _run(model: Model, parts: Mapping[str, nn.Module], look: Look, images_BCHW: Tensor) -> None:
    """One forward pass in which every output of these parts is looked at; the model is left as it was."""

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda part, _, output: look(name, part, output)

    handles = [part.register_forward_hook(hook(name)) for name, part in parts.items()]
    try:
        model(images_BCHW)
    finally:
        for handle in handles:
            handle.remove()


def _refusal(part: nn.Module, output: object, images: int, model: Model) -> str:
    """Why this output cannot be taken; nothing where it can."""
    if not isinstance(output, Tensor) or isinstance(part, RelativePositions):
        return "its output is no tensor of features"
    shape = " x ".join(map(str, output.shape))
    if output.ndim == 0 or len(output) != images:
        return f"its output is {shape} for {images} images, and the first axis is not the number of images"
    if output.ndim in (2, 4) or (output.ndim == 3 and output.shape[1] in _lengths(model)):
        return ""
    return f"its output of {shape} is neither a row, nor tokens, nor a map for each image"


def _lengths(model: Model) -> set[int]:
    """How many tokens an image can have: all, the patches alone, or the class token alone."""
    if not isinstance(model, VisionTransformer):
        return set()
    return {model.config.tokens, model.config.tokens - model.prefix_tokens, 1}


def _rows(output: Tensor, model: Model) -> Tensor:
    if output.ndim == 4:
        return output.mean((2, 3))
    if output.ndim == 2:
        return output
    assert isinstance(model, VisionTransformer)
    # The projection of the patches has no class token, though the model has one.
    with_token = model.prefix_tokens > 0 and output.shape[1] == model.config.tokens
    return output[:, 0] if with_token else output.mean(1)


def _listed(names: Iterable[str]) -> str:
    """Names without the parts of their parts; numbered ones as "blocks.0 to blocks.11"."""
    outer: list[str] = []
    for name in names:  # a part comes before its own parts
        if not outer or not name.startswith(f"{outer[-1]}."):
            outer.append(name)
    runs = [list(run) for _, run in groupby(outer, lambda name: name.rstrip("0123456789"))]
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
