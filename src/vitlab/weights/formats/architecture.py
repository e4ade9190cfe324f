"""From the names and shapes of a file's arrays to the config of a model that vitlab has, or to a refusal."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.configs import Gelu, ResNetConfig, ResNetStem, ViTConfig, height_and_width
from vitlab.recipes.zoo import SIZES
from vitlab.weights.plan import ArraySource, Size
from vitlab.weights.readers.tensors import Shape, listed

HEADS_OF_WIDTH = {hidden: heads for _, hidden, _, heads in SIZES.values()}
USUAL_HEAD_WIDTH = 64
USUAL_IMAGE_SIZE = 224
MOST_LAYERS = 1000

# Components that change the outputs and that the paper's models lack, by what their names contain.
FOREIGN = {
    "fc_norm.": "averages the patch tokens before its last norm",
    "dist_token": "has a distillation token (DeiT's distilled models)",
    "distillation_token": "has a distillation token (DeiT's distilled models)",
    "reg_token": "has register tokens",
    "register_tokens": "has register tokens",
    "attn_pool.": "pools by attention",
    "MAPHead_0": "pools by attention (MAP)",
    "q_norm.": "normalises its queries and keys",
    "norm_pre.": "normalises before its first block",
    "relative_position_bias": "has relative position biases",
    "mlp.w12.": "has gated MLPs (SwiGLU)",
    "mlp.weights_in.": "has gated MLPs (SwiGLU)",
    "mlp.fc1_g.": "has gated MLPs (SwiGLU)",
    "qkv_bias_separate": "has attention without key biases",
    "attn.q_bias": "has attention without key biases",
}


@dataclass(frozen=True)
class Hints:
    """What the arrays do not say; None where unknown.

    Attributes:
        where: the source, for messages.
        gelu: the flavour this format implies or its config names.
        norm_eps: of the layer normalisations.
        heads: number of attention heads.
        image_size: that the weights are for, as their own config says.
        asked: the image size that the caller wants; used as the weights' own only where nothing else fits.
    """

    where: str
    gelu: Gelu
    norm_eps: float = 1e-6
    heads: int | None = None
    image_size: Size | None = None
    asked: Size | None = None


def check_supported(names: Iterable[str], where: str) -> None:
    """Refuse a model with components that the paper's models do not have.

    Raises:
        UserError: says which.
    """
    every = list(names)
    for component, what in FOREIGN.items():
        found = [name for name in every if component in name]
        if found:
            raise UserError(f"{where}: this model {what} ({listed(found, 2)}), which vitlab's models do not have")


def prefix_before(names: Iterable[str], landmark: str, where: str) -> str | None:
    """What stands before `landmark` in the one name that ends with it; None where no name does.

    A self-distilled checkpoint holds two models; the teacher is the one to use (DINO).

    Raises:
        UserError: several models.
    """
    found = [name.removesuffix(landmark) for name in names if name.endswith(landmark)]
    found = [prefix for prefix in found if prefix == "" or prefix.endswith((".", "/"))]
    teachers = [prefix for prefix in found if prefix.startswith("teacher.")]
    if len(found) > 1 and len(teachers) != 1:
        raise UserError(f"{where}: holds {len(found)} models, under {listed(found)}; save the one to load alone")
    return next(iter(teachers or found), None)


def shapes_after(sources: Mapping[str, ArraySource], shapes: Mapping[str, Shape], where: str) -> dict[str, Shape]:
    """The shapes that `sources` give, without reading anything.

    Raises:
        UserError: arrays that do not fit together.
    """
    after = {}
    for name, part in sources.items():
        try:
            after[name] = part.shape(shapes)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            declared = ", ".join(f"'{source}' {shapes[source]}" for source in part.names)
            raise UserError(f"{where}: arrays misshaped for '{name}': {declared}; download it again") from error
    return after


def vit_config(shapes: Mapping[str, Shape], hints: Hints) -> ViTConfig:
    """The config of a plain or hybrid ViT.

    Args:
        shapes: of its arrays, by vitlab's names.
        hints: what the arrays do not say.

    Raises:
        UserError: arrays that every ViT has are missing, or the number of heads or the grid cannot be determined.
    """
    patches = _shape(shapes, "patch_embed.proj.weight", 4, hints)
    hidden = patches[0]
    stem = _stem(shapes, hints)
    layers = count(shapes, r"blocks\.(\d+)\.norm1\.weight", hints)
    return ViTConfig(
        patch=(patches[2], patches[3]),
        hidden=hidden,
        layers=layers,
        mlp=_shape(shapes, "blocks.0.mlp.fc1.weight", 2, hints)[0],
        heads=hints.heads or _heads(hidden, hints),
        image_size=_image_size(shapes, token_size(shapes, hints), hints),
        num_classes=_outputs(shapes, "head.weight", 2, hints) or 0,
        head="token" if "cls_token" in shapes else "gap",
        representation=_outputs(shapes, "pre_logits.weight", 2, hints),
        position="learned" if "pos_embed" in shapes else "none",
        gelu=hints.gelu,
        resnet=stem,
        norm_eps=hints.norm_eps,
    )


def resnet_config(shapes: Mapping[str, Shape], hints: Hints) -> ResNetConfig:
    """The config of a BiT ResNet.

    Raises:
        UserError: arrays that every ResNet has are missing.
    """
    blocks = _blocks(shapes, "", hints)
    return ResNetConfig(
        blocks=blocks,
        width=_shape(shapes, "stem.conv.weight", 4, hints)[0] / 64,
        image_size=hints.image_size or hints.asked or USUAL_IMAGE_SIZE,
        num_classes=_outputs(shapes, "head.fc.weight", 4, hints) or 0,
    )


def count(names: Iterable[str], pattern: str, hints: Hints) -> int:
    """How many layers are numbered 0, 1, 2, ... by `pattern`'s group.

    Raises:
        UserError: there are no numbered layers, or a number is missing.
    """
    numbers = {int(match[1]) for name in names if (match := re.fullmatch(pattern, name))}
    if not numbers or numbers != set(range(len(numbers))) or len(numbers) > MOST_LAYERS:
        lost = next((number for number in range(len(numbers) + 1) if number not in numbers), 0)
        raise UserError(
            f"{hints.where}: {len(numbers)} numbered layers were found and number {lost} is missing; "
            "the file is incomplete, download it again"
        )
    return len(numbers)


def grid_of(patches: int, token_hw: tuple[int, int], hints: Hints) -> tuple[int, int] | None:
    """Rows and columns of `patches` positions: as the weights' config says, else a square, else what was asked for."""
    side = math.isqrt(max(0, patches))
    square = [(side * token_hw[0], side * token_hw[1])]
    for size in [hints.image_size, *square, hints.asked]:
        if size is not None:
            height, width = height_and_width(size)
            rows, columns = height // max(1, token_hw[0]), width // max(1, token_hw[1])
            if rows * columns == patches and patches > 0:
                return rows, columns
    return None


def token_size(shapes: Mapping[str, Shape], hints: Hints) -> tuple[int, int]:
    """Height and width in input pixels from one token to the next."""
    patches, stem = _shape(shapes, "patch_embed.proj.weight", 4, hints), _stem(shapes, hints)
    stride = stem.stride if stem else 1
    return patches[2] * stride, patches[3] * stride


def as_size(value: object) -> Size | None:
    """An image size from a JSON file: an int or [height, width], None for anything else."""
    sides = value if isinstance(value, list) else [value]
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(whole) != len(sides) or len(whole) not in (1, 2):
        return None
    return (whole[0], whole[-1])


def has_class_row(tokens: int, token_hw: tuple[int, int], hints: Hints) -> bool:
    """Whether the first of `tokens` positions is the class token's: the rest, and not all of them, forms a grid."""
    return grid_of(tokens - 1, token_hw, hints) is not None or grid_of(tokens, token_hw, hints) is None


def _image_size(shapes: Mapping[str, Shape], token_hw: tuple[int, int], hints: Hints) -> tuple[int, int]:
    if "pos_embed" not in shapes:
        return height_and_width(hints.image_size or hints.asked or USUAL_IMAGE_SIZE)
    tokens = _shape(shapes, "pos_embed", 3, hints)[1]
    patches = tokens - (1 if "cls_token" in shapes else 0)
    grid = grid_of(patches, token_hw, hints)
    if grid is None:
        raise UserError(
            f"{hints.where}: {patches} patch positions are not a square grid, which the arrays alone do not determine; "
            "give image_size=(height, width)"
        )
    return grid[0] * token_hw[0], grid[1] * token_hw[1]


def _heads(hidden: int, hints: Hints) -> int:
    if hidden in HEADS_OF_WIDTH:
        return HEADS_OF_WIDTH[hidden]
    if hidden % USUAL_HEAD_WIDTH == 0:
        return hidden // USUAL_HEAD_WIDTH
    raise UserError(
        f"{hints.where}: the arrays do not determine the number of heads of width {hidden}; "
        "put a config.json beside them"
    )


def _stem(shapes: Mapping[str, Shape], hints: Hints) -> ResNetStem | None:
    root = "patch_embed.backbone."
    if f"{root}stem.conv.weight" not in shapes:
        return None
    width = _shape(shapes, f"{root}stem.conv.weight", 4, hints)[0] / 64
    has_stages = any(name.startswith(f"{root}stages.") for name in shapes)
    return ResNetStem(_blocks(shapes, root, hints) if has_stages else (), width)


def _blocks(shapes: Mapping[str, Shape], root: str, hints: Hints) -> tuple[int, ...]:
    stages = count(shapes, re.escape(root) + r"stages\.(\d+)\.blocks\.0\.conv1\.weight", hints)
    one = re.escape(root) + r"stages\.{}\.blocks\.(\d+)\.conv1\.weight"
    return tuple(count(shapes, one.format(stage), hints) for stage in range(stages))


def _outputs(shapes: Mapping[str, Shape], name: str, sides: int, hints: Hints) -> int | None:
    return _shape(shapes, name, sides, hints)[0] if name in shapes else None


def _shape(shapes: Mapping[str, Shape], name: str, sides: int, hints: Hints) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != sides or 0 in shape:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise UserError(f"{hints.where}: '{name}' {found}, which every model has; download it again")
    return shape
