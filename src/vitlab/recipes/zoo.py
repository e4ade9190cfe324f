"""Every named model of the paper and its follow-ups as a configuration (paper: Tables 1 and 6, App. D.6)."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from vitlab.errors import UserError, unknown_name
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ResNetStem, ViTConfig

__all__ = ["ResNetConfig", "ResNetStem", "ViTConfig", "configure", "get", "is_known", "names"]

# layers, hidden, mlp, heads. Ti and S are AugReg's, g and G those of the 2022 scaling paper (here with the
# class token of this paper instead of attention pooling).
SIZES = {
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),
    "G": (48, 1664, 8192, 16),
}
WORDS = {"tiny": "Ti", "small": "S", "base": "B", "large": "L", "huge": "H", "giant": "g", "gigantic": "G"}
PATCHES = (8, 14, 16, 32)
# The number after the slash is the total downsampling, except in R+ViT-Ti/16, which the original's code gives
# a stride of 4 and 8x8 patches, 32 in all.
HYBRIDS = {
    "R+ViT-Ti/16": ("Ti", 8, ()),
    "R26+ViT-S/32": ("S", 1, (2, 2, 2, 2)),
    "R26+ViT-B/32": ("B", 1, (2, 2, 2, 2)),
    "R50+ViT-B/16": ("B", 1, (3, 4, 9)),
    "R50+ViT-B/32": ("B", 1, (3, 4, 6, 3)),
    "R50+ViT-L/16": ("L", 1, (3, 4, 9)),
    "R50+ViT-L/32": ("L", 1, (3, 4, 6, 3)),
}
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
RESNETS = {
    f"BiT-R{depth}x{width}": (depth, width)
    for depth, width in [(50, 1), (50, 2), (50, 3), (101, 1), (101, 3), (152, 1), (152, 2), (152, 4), (200, 3)]
}
AXIAL_RESNET = "AxialResNet50"

_VIT = re.compile(
    r"(?P<axial>axial[-_ ]?)?(?:r(?P<depth>\d*)(?:x1)?\+)?(?:vit[-_ ]?)?"
    r"(?P<size>tiny|small|base|large|huge|giant|gigantic|ti|s|b|l|h|g)"
    r"[-_/ ]?(?:patch)?(?P<patch>\d{1,5})(?:[-_](?P<image>\d{2,5}))?",
    re.IGNORECASE,
)
_RESNET = re.compile(r"(?:bit[-_](?:[sml][-_])?)?r(?:esnet)?(?P<depth>\d+)x(?P<width>\d+)", re.IGNORECASE)
_AXIAL_RESNET = re.compile(r"axial[-_ ]?resnet[-_ ]?50", re.IGNORECASE)


def names() -> list[str]:
    """Every named model, in the paper's slash form."""
    plain = [f"ViT-{size}/{patch}" for size in SIZES for patch in PATCHES]
    return [*plain, *HYBRIDS, *RESNETS, "Axial-ViT-B/16", "Axial-ViT-B/32", AXIAL_RESNET]


def get(name: str) -> ModelConfig:
    """The configuration of a named model, at 224 pixels and 1000 classes.

    Every usual spelling is understood: `ViT-B/16`, `ViT-B_16`, `B/16`, `vit_base_patch16_384` (the last
    number is the image size), `R50+B/16`, `BiT-R50x1`, `R50x1`. Any patch size works, such as `ViT-Ti/4`.
    Case matters for `g` and `G` only.

    Raises:
        UserError: the name is unknown (the nearest ones are given), or its patch does not fit the image.
    """
    return configure(name, {})


def is_known(name: str) -> bool:
    """Whether a model has this name, in any spelling, whatever its image size."""
    try:
        _named(" ".join(name.split()))
    except UserError:
        return False
    return True


def configure(model: str | ModelConfig, options: Mapping[str, object]) -> ModelConfig:
    """The configuration of a model with some of its fields changed.

    Args:
        model: a name (see `get`) or a configuration.
        options: field names of the configuration and their new values.

    Raises:
        UserError: an unknown name or option (the nearest ones are given), or values that do not fit together.
    """
    if isinstance(model, str):
        kind, fields = _named(" ".join(model.split()))
    else:
        kind = type(model)
        fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    # All at once: a patch that does not fit the name's 224 pixels may fit the image size among the options.
    return kind(**(fields | dict(options)))


def _named(name: str) -> tuple[type[ModelConfig], dict[str, Any]]:
    if match := _RESNET.fullmatch(name):
        canonical = f"BiT-R{match['depth']}x{match['width']}"
        if canonical in RESNETS:
            depth, width = RESNETS[canonical]
            return ResNetConfig, {"blocks": DEPTHS[depth], "width": float(width)}
    elif _AXIAL_RESNET.fullmatch(name):
        return ResNetConfig, {"blocks": DEPTHS[50], "axial_heads": 8}
    elif match := _VIT.fullmatch(name):
        size, patch = _size(match["size"]), int(match["patch"])
        image: dict[str, Any] = {"image_size": int(match["image"])} if match["image"] else {}
        if match["depth"] is None:
            axial = {"axial": True, "head": "gap", "position": "learned2d"} if match["axial"] else {}
            return ViTConfig, _plain(size, patch) | axial | image
        canonical = f"R{match['depth']}+ViT-{size}/{patch}"
        if canonical in HYBRIDS and not match["axial"]:
            size, patch, blocks = HYBRIDS[canonical]
            return ViTConfig, _plain(size, patch) | {"resnet": ResNetStem(blocks)} | image
    raise unknown_name("model", name, names(), listing="`vitlab models` lists them")


def _size(word: str) -> str:
    if word in ("g", "G"):
        return word
    folded = {size.lower(): size for size in SIZES if size.lower() != "g"} | WORDS
    return folded[word.lower()]


def _plain(size: str, patch: int) -> dict[str, Any]:
    layers, hidden, mlp, heads = SIZES[size]
    return {"patch": patch, "hidden": hidden, "layers": layers, "mlp": mlp, "heads": heads}
