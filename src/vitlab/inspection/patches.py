"""How an image becomes patches and tokens, step by step (paper: Figure 1, Eq. 1 to 4)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vitlab.errors import UserError
from vitlab.inspection.subject import transformer
from vitlab.models.positions import ADDED, KINDS
from vitlab.recipes.configs import ViTConfig


@dataclass(frozen=True)
class Step:
    """One step from image to logits.

    Attributes:
        name: of the step.
        shape: of what comes out, for one image.
        meaning: what the axes are and what was done, in a sentence.
    """

    name: str
    shape: tuple[int, ...]
    meaning: str


def patch_grid(model: nn.Module, image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image cut into the patches that become the model's tokens (paper: section 3.1).

    Args:
        model: a Vision Transformer; of a hybrid, whose tokens see beyond their patch, the squares that its
            tokens stand for.
        image_HWC: of the model's input size.

    Returns:
        (rows, columns, patch height, patch width, 3), a view of the image; [r, c] is token r * columns + c.

    Raises:
        UserError: not a Vision Transformer, or an image of another size.
    """
    config = transformer(model, "patches").config
    if image_HWC.shape != (*config.image_hw, 3):
        height, width = config.image_hw
        raise UserError(f"the image is {image_HWC.shape}: the model's are ({height}, {width}, 3); resize it first")
    (rows, columns), (height, width) = config.grid, config.token_hw
    return image_HWC.reshape(rows, height, columns, width, 3).swapaxes(1, 2)


def token_steps(model: nn.Module) -> tuple[Step, ...]:
    """Every step from the image to the logits, with the shapes that this model gives them.

    Raises:
        UserError: not a Vision Transformer.
    """
    config = transformer(model, "steps from image to tokens").config
    return (*_to_patches(config), *_to_tokens(config), *_to_logits(config))


def _to_patches(config: ViTConfig) -> list[Step]:
    rows, columns = config.grid
    height, width = config.patch_hw
    steps = [Step("image", (*config.image_hw, 3), "height, width and colours of the input")]
    what = "the image"
    if config.resnet is not None:
        what = "the feature map"
        map_hw = (rows * height, columns * width)
        meaning = f"a ResNet makes a feature map, {config.resnet.stride} times smaller than the image"
        steps.append(Step("feature map", (*map_hw, config.patch_channels), meaning))
    patch = (height, width, config.patch_channels)
    steps.append(Step("patches", (rows, columns, *patch), f"{what} is cut into {rows} rows of {columns} patches"))
    flat = (rows * columns, height * width * config.patch_channels)
    steps.append(Step("sequence", flat, "every patch is written as one long vector, row after row"))
    return steps


def _to_tokens(config: ViTConfig) -> list[Step]:
    patches = config.grid[0] * config.grid[1]
    steps = [Step("patch embeddings", (patches, config.hidden), "one linear map, the same for all, embeds the patches")]
    tokens = (config.tokens, config.hidden)
    if config.prefix_tokens:
        steps.append(Step("class token", tokens, "a learned token, which will gather the answer, is put in front"))
    added = KINDS[config.position].meaning if config.position in ADDED else ""
    if added:
        where = "" if config.position_at == "input" else ", again before every layer"
        steps.append(Step("positions", tokens, added + where))
    return steps


def _to_logits(config: ViTConfig) -> list[Step]:
    shape: tuple[int, ...] = (config.tokens, config.hidden)
    what = f"{config.layers} layers of {config.heads}-headed attention and MLP, and a final norm"
    pooled = "the class token" if config.prefix_tokens else "the mean of all tokens"
    steps = [Step("encoder", shape, what), Step("pooling", (config.hidden,), f"{pooled} stands for the image")]
    if config.representation:
        steps.append(Step("representation", (config.representation,), "a linear map and a tanh"))
    if config.num_classes:
        steps.append(Step("logits", (config.num_classes,), "a linear map gives a score for every class"))
    return steps
