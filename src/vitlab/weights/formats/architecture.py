"""From the shapes of a model's arrays, under vitlab's own names, to its config."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.configs import Gelu, ResNetConfig, ResNetStem, ViTConfig, height_and_width
from vitlab.recipes.zoo import SIZES
from vitlab.weights.plan import Part, Size
from vitlab.weights.readers.tensors import Shape

HEADS_OF_WIDTH = {hidden: heads for _, hidden, _, heads in SIZES.values()}
USUAL_HEAD_WIDTH = 64
USUAL_IMAGE_SIZE = 224
MOST_LAYERS = 1000


@dataclass(frozen=True)
class Known:
    """What the arrays do not tell; None where nobody said.

    Attributes:
        where: the source, for messages.
        gelu: the flavour this format implies or its config names.
        norm_eps: of the layer normalisations.
        heads: number of attention heads.
        image_size: that the weights are for, as their own config says.
        asked: the image size that the caller wants; taken for the weights' own only where nothing else fits.
    """

    where: str
    gelu: Gelu
    norm_eps: float = 1e-6
    heads: int | None = None
    image_size: Size | None = None
    asked: Size | None = None


def shapes_after(parts: Mapping[str, Part], shapes: Mapping[str, Shape], where: str) -> dict[str, Shape]:
    """The shapes that `parts` give, without reading anything.

    Raises:
        UserError: arrays that do not fit together.
    """
    after = {}
    for name, part in parts.items():
        try:
            after[name] = part.shape(shapes)
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            declared = ", ".join(f"'{source}' {shapes[source]}" for source in part.names)
            raise UserError(f"{where}: arrays misshaped for '{name}': {declared}; get the file again") from error
    return after


def vit_config(shapes: Mapping[str, Shape], known: Known) -> ViTConfig:
    """The config of a plain or hybrid ViT.

    Args:
        shapes: of its arrays, by vitlab's names.
        known: what the arrays do not tell.

    Raises:
        UserError: arrays that every ViT has are missing, or the number of heads or the grid cannot be told.
    """
    patches = _shape(shapes, "patch_embed.proj.weight", 4, known)
    hidden = patches[0]
    stem = _stem(shapes, known)
    layers = count(shapes, r"blocks\.(\d+)\.norm1\.weight", known)
    return ViTConfig(
        patch=(patches[2], patches[3]),
        hidden=hidden,
        layers=layers,
        mlp=_shape(shapes, "blocks.0.mlp.fc1.weight", 2, known)[0],
        heads=known.heads or _heads(hidden, known),
        image_size=_image_size(shapes, token_size(shapes, known), known),
        num_classes=_outputs(shapes, "head.weight", 2, known) or 0,
        head="token" if "cls_token" in shapes else "gap",
        representation=_outputs(shapes, "pre_logits.weight", 2, known),
        position="learned" if "pos_embed" in shapes else "none",
        gelu=known.gelu,
        resnet=stem,
        norm_eps=known.norm_eps,
    )


def resnet_config(shapes: Mapping[str, Shape], known: Known) -> ResNetConfig:
    """The config of a BiT ResNet.

    Raises:
        UserError: arrays that every ResNet has are missing.
    """
    blocks = _blocks(shapes, "", known)
    return ResNetConfig(
        blocks=blocks,
        width=_shape(shapes, "stem.conv.weight", 4, known)[0] / 64,
        image_size=known.image_size or known.asked or USUAL_IMAGE_SIZE,
        num_classes=_outputs(shapes, "head.fc.weight", 4, known) or 0,
    )


def count(names: Iterable[str], pattern: str, known: Known) -> int:
    """How many layers are numbered 0, 1, 2, ... by `pattern`'s group.

    Raises:
        UserError: none, or a number is left out.
    """
    numbers = {int(match[1]) for name in names if (match := re.fullmatch(pattern, name))}
    if not numbers or numbers != set(range(len(numbers))) or len(numbers) > MOST_LAYERS:
        lost = next((number for number in range(len(numbers) + 1) if number not in numbers), 0)
        raise UserError(
            f"{known.where}: {len(numbers)} numbered layers were found and number {lost} is missing; "
            "the file is not whole, get it again"
        )
    return len(numbers)


def grid_of(patches: int, token_hw: tuple[int, int], known: Known) -> tuple[int, int] | None:
    """Rows and columns of `patches` positions: as the weights' config says, else a square, else what was asked for."""
    side = math.isqrt(max(0, patches))
    square = [(side * token_hw[0], side * token_hw[1])]
    for size in [known.image_size, *square, known.asked]:
        if size is not None:
            height, width = height_and_width(size)
            rows, columns = height // max(1, token_hw[0]), width // max(1, token_hw[1])
            if rows * columns == patches and patches > 0:
                return rows, columns
    return None


def token_size(shapes: Mapping[str, Shape], known: Known) -> tuple[int, int]:
    """Height and width in input pixels from one token to the next."""
    patches, stem = _shape(shapes, "patch_embed.proj.weight", 4, known), _stem(shapes, known)
    stride = stem.stride if stem else 1
    return patches[2] * stride, patches[3] * stride


def as_size(value: object) -> Size | None:
    """An image size out of a JSON file: an int or [height, width], None for anything else."""
    sides = value if isinstance(value, list) else [value]
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    if len(whole) != len(sides) or len(whole) not in (1, 2):
        return None
    return (whole[0], whole[-1])


def has_class_row(tokens: int, token_hw: tuple[int, int], known: Known) -> bool:
    """Whether the first of `tokens` positions is the class token's: the rest, and not the whole, makes up a grid."""
    return grid_of(tokens - 1, token_hw, known) is not None or grid_of(tokens, token_hw, known) is None


def _image_size(shapes: Mapping[str, Shape], token_hw: tuple[int, int], known: Known) -> tuple[int, int]:
    if "pos_embed" not in shapes:
        return height_and_width(known.image_size or known.asked or USUAL_IMAGE_SIZE)
    tokens = _shape(shapes, "pos_embed", 3, known)[1]
    patches = tokens - (1 if "cls_token" in shapes else 0)
    grid = grid_of(patches, token_hw, known)
    if grid is None:
        raise UserError(
            f"{known.where}: {patches} patch positions are not a square grid, which the arrays alone cannot tell; "
            "give image_size=(height, width)"
        )
    return grid[0] * token_hw[0], grid[1] * token_hw[1]


def _heads(hidden: int, known: Known) -> int:
    if hidden in HEADS_OF_WIDTH:
        return HEADS_OF_WIDTH[hidden]
    if hidden % USUAL_HEAD_WIDTH == 0:
        return hidden // USUAL_HEAD_WIDTH
    raise UserError(
        f"{known.where}: the arrays do not tell the number of heads of width {hidden}; put a config.json beside them"
    )


def _stem(shapes: Mapping[str, Shape], known: Known) -> ResNetStem | None:
    root = "patch_embed.backbone."
    if f"{root}stem.conv.weight" not in shapes:
        return None
    width = _shape(shapes, f"{root}stem.conv.weight", 4, known)[0] / 64
    has_stages = any(name.startswith(f"{root}stages.") for name in shapes)
    return ResNetStem(_blocks(shapes, root, known) if has_stages else (), width)


def _blocks(shapes: Mapping[str, Shape], root: str, known: Known) -> tuple[int, ...]:
    stages = count(shapes, re.escape(root) + r"stages\.(\d+)\.blocks\.0\.conv1\.weight", known)
    one = re.escape(root) + r"stages\.{}\.blocks\.(\d+)\.conv1\.weight"
    return tuple(count(shapes, one.format(stage), known) for stage in range(stages))


def _outputs(shapes: Mapping[str, Shape], name: str, sides: int, known: Known) -> int | None:
    return _shape(shapes, name, sides, known)[0] if name in shapes else None


def _shape(shapes: Mapping[str, Shape], name: str, sides: int, known: Known) -> Shape:
    shape = shapes.get(name)
    if shape is None or len(shape) != sides or 0 in shape:
        found = "is missing" if shape is None else f"has shape {shape}"
        raise UserError(f"{known.where}: '{name}' {found}, which no model goes without; get the file again")
    return shape
