"""What every export does first: check that the format can hold the model, and fold what can be folded."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.models.positions import sincos_2d
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.configs import Gelu, Head, ModelConfig, ViTConfig
from vitlab.recipes.preprocessing import Preprocessing

log = logging.getLogger(__name__)

ELSEWHERE = "save it as vitlab or onnx"


@dataclass(frozen=True)
class Holds:
    """What a format has a place for.

    Attributes:
        name: of the format, for messages.
        heads, gelus: the variants it has.
        representation, hybrids, resnets, rectangles, headless: whether it has the hidden head layer, hybrids, BiT
            ResNets, images and patches that are not square, models without a head.
        norm_eps: the only epsilon its readers use; None where it names its own.
        preprocessing: the only preprocessing its readers assume; None where it names its own.
    """

    name: str
    heads: Collection[Head] = ("token", "gap")
    gelus: Collection[Gelu] = ("tanh", "erf")
    representation: bool = True
    hybrids: bool = True
    resnets: bool = True
    rectangles: bool = True
    headless: bool = True
    norm_eps: float | None = None
    preprocessing: Preprocessing | None = None


def check_holds(model: Model, holds: Holds) -> None:
    """Refuse a model that the format has no place for; log what its readers will have to be told.

    Raises:
        UserError: names the part and a way out.
    """
    lacking = _lacking(model.config, holds)
    if lacking:
        raise UserError(f"{holds.name} cannot hold {lacking[0]}: {ELSEWHERE}")
    config = model.config
    if holds.norm_eps is not None and isinstance(config, ViTConfig) and config.norm_eps != holds.norm_eps:
        log.warning("%s readers use norm_eps=%g, this model has %g", holds.name, holds.norm_eps, config.norm_eps)
    if holds.preprocessing is not None:
        told, own = holds.preprocessing, model.preprocessing
        if (own.mean, own.std) != (told.mean, told.std):
            log.warning("%s has no place for mean %s and std %s: tell who reads it", holds.name, own.mean, own.std)


def _lacking(config: ModelConfig, holds: Holds) -> list[str]:
    found = [(config.num_classes == 0 and not holds.headless, "a model without a head")]
    if not isinstance(config, ViTConfig):
        found += [
            (not holds.resnets, "a ResNet"),
            (config.axial_heads is not None, "an AxialResNet"),
        ]
        return [what for lacks, what in found if lacks]
    square = config.patch_hw[0] == config.patch_hw[1] and config.image_hw[0] == config.image_hw[1]
    found += [
        (config.axial, "an axial model"),
        (config.position == "relative", "position='relative'"),
        (config.position_at != "input", f"position_at='{config.position_at}'"),
        (config.head not in holds.heads, f"head='{config.head}'"),
        (config.gelu not in holds.gelus, f"gelu='{config.gelu}'"),
        (config.representation is not None and not holds.representation, "the representation layer"),
        (config.resnet is not None and not holds.hybrids, "a hybrid"),
        (not square and not holds.rectangles, f"patches {config.patch} of images {config.image_size}"),
    ]
    return [what for lacks, what in found if lacks]


def state_of(model: Model) -> dict[str, Tensor]:
    """The model's arrays on the CPU, its positions as one table `pos_embed` (1, tokens, width), whatever their variant.

    A table of fixed or two-dimensional positions, or of zeros where there are none, gives the same outputs.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if isinstance(model, VisionTransformer) and model.config.position != "learned":
        for name in ("pos_embed_row", "pos_embed_column", "pos_embed_cls"):
            state.pop(name, None)
        state["pos_embed"] = _table(model)
    return state


def _table(model: VisionTransformer) -> Tensor:
    config = model.config
    if config.position == "learned2d":
        rows, columns = config.grid
        row_1RCE = model.pos_embed_row.detach()[:1, :, None].expand(-1, -1, columns, -1)
        column_1RCE = model.pos_embed_column.detach()[:1, None].expand(-1, rows, -1, -1)
        patches_1PD = torch.cat((column_1RCE, row_1RCE), dim=3).flatten(1, 2)
        prefix = model.pos_embed_cls.detach()[:1] if config.prefix_tokens else patches_1PD[:, :0]
        return torch.cat((prefix, patches_1PD), dim=1).cpu()
    if config.position == "sincos2d":
        return F.pad(sincos_2d(config.grid, config.hidden), (0, 0, config.prefix_tokens, 0))[None]
    return torch.zeros(1, config.tokens, config.hidden)


def class_names(model: Model) -> Mapping[int, str]:
    """Class names by index: the model's, or numbers."""
    names = model.classes or tuple(f"LABEL_{index}" for index in range(model.config.num_classes))
    return dict(enumerate(names))
