"""torchvision's names of its plain ViTs, in a safetensors file that its `load_state_dict` takes."""

import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from vitlab.models.build import Model
from vitlab.weights.formats import preprocessors
from vitlab.weights.formats.architecture import Hints, check_supported, prefix_before, shapes_after, vit_config
from vitlab.weights.formats.exporting import FormatLimits, check_limits, state_of, write_file
from vitlab.weights.plan import ArraySource, LoadPlan, SourceSettings
from vitlab.weights.readers.tensors import Shape

LIMITS = FormatLimits(
    "torchvision",
    heads=["token"],
    gelus=["erf"],
    hybrids=False,
    resnets=False,
    rectangles=False,
    headless=False,
    norm_eps=1e-6,
    preprocessing=preprocessors.imagenet((224, 224), "bilinear"),
)
LANDMARK = "conv_proj.weight"
TOP = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj": "patch_embed.proj",
    "encoder.ln": "norm",
    "heads.head": "head",
    "heads.pre_logits": "pre_logits",
}
LAYER = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
IN_LAYER = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "self_attention.in_proj": "attn.qkv",
    "self_attention.out_proj": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
# Names of torchvision before 0.13.
OLDER = {"mlp.linear_1": "mlp.fc1", "mlp.linear_2": "mlp.fc2"}


def recognise(shapes: Mapping[str, Shape]) -> bool:
    """Whether the names are those of torchvision's VisionTransformer."""
    return any(name.endswith(LANDMARK) for name in shapes) and any("encoder_layer_0." in name for name in shapes)


def plan(shapes: Mapping[str, Shape], settings: SourceSettings) -> LoadPlan:
    """The model that the arrays fit: exact GELU, epsilon 1e-6, ImageNet's preprocessing.

    Raises:
        UserError: the model is incomplete.
    """
    check_supported(shapes, settings.where)
    prefix = prefix_before(shapes, LANDMARK, settings.where) or ""
    sources = {_ours(name.removeprefix(prefix)): ArraySource((name,)) for name in shapes if name.startswith(prefix)}
    hints = Hints(settings.where, "erf", asked=settings.image_size)
    config = vit_config(shapes_after(sources, shapes, settings.where), hints)
    return LoadPlan("a ViT of torchvision", config, sources, preprocessors.imagenet(config.image_hw, "bilinear"))


def save(model: Model, path: Path) -> None:
    """Write a safetensors file under torchvision's names.

    Raises:
        UserError: the model has components that torchvision's lacks.
    """
    check_limits(model, LIMITS)
    arrays: dict[str, torch.Tensor] = {_theirs(name): array.contiguous() for name, array in state_of(model).items()}
    write_file(path, safetensors.torch.save(arrays, metadata={"format": "pt"}), example="model.safetensors")


def _split(name: str) -> tuple[str, str]:
    """A name without its last part, and that part with what joins it: MultiheadAttention writes in_proj_weight."""
    match = re.fullmatch(r"(.+?)[._](weight|bias)", name)
    return (match[1], match[2]) if match else (name, "")


def _ours(name: str) -> str:
    base, leaf = _split(name)
    if match := LAYER.fullmatch(base):
        inner = (IN_LAYER | OLDER).get(match[2], match[2])
        return f"blocks.{match[1]}.{inner}.{leaf}"
    return f"{TOP.get(base, base)}.{leaf}".removesuffix(".")


def _theirs(name: str) -> str:
    base, leaf = _split(name)
    if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", base):
        inner = next(theirs for theirs, ours in IN_LAYER.items() if ours == match[2])
        joint = "_" if inner.endswith("in_proj") else "."
        return f"encoder.layers.encoder_layer_{match[1]}.{inner}{joint}{leaf}"
    theirs = next(theirs for theirs, ours in TOP.items() if ours == base)
    return f"{theirs}.{leaf}".removesuffix(".")
