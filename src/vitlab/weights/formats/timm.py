"""timm's names, also those of DeiT, DINO, DINOv2 and MAE; and timm's folders, with a config.json."""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vitlab.errors import UserError
from vitlab.files import write_json
from vitlab.models.build import Model
from vitlab.recipes.configs import Gelu, ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights.formats import layouts, preprocessors
from vitlab.weights.formats.architecture import (
    Hints,
    as_size,
    check_supported,
    has_class_row,
    prefix_before,
    resnet_config,
    shapes_after,
    token_size,
    vit_config,
)
from vitlab.weights.formats.exporting import FormatLimits, check_limits, new_folder, state_of
from vitlab.weights.plan import ArraySource, LoadPlan, SourceSettings, as_is
from vitlab.weights.readers.tensors import Shape

log = logging.getLogger(__name__)

LIMITS = FormatLimits("timm", representation=False)
PATCHES, ROOT = "patch_embed.proj.weight", "stem.conv.weight"
# Hints, and not part of the classifier: counted in a log line.
LEFT_OUT = {
    r"mask_token": "the token of masked training",
    r"decoder.*": "the decoder of masked training",
}
FOLDED = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
GELUS: Mapping[str, Gelu] = {"gelu": "erf", "gelu_erf": "erf", "gelu_tanh": "tanh", "gelu_pytorch_tanh": "tanh"}
NAMED = {
    (192, 16): "vit_tiny_patch16_224",
    (384, 8): "vit_small_patch8_224",
    (384, 16): "vit_small_patch16_224",
    (384, 32): "vit_small_patch32_224",
    (768, 8): "vit_base_patch8_224",
    (768, 16): "vit_base_patch16_224",
    (768, 32): "vit_base_patch32_224",
    (1024, 14): "vit_large_patch14_224",
    (1024, 16): "vit_large_patch16_224",
    (1024, 32): "vit_large_patch32_224",
    (1280, 14): "vit_huge_patch14_224",
}
# Every size is spelled out in model_args, so any plain ViT can go by this name.
ANY_PLAIN = "vit_base_patch16_224"
HYBRIDS: Mapping[tuple[int, ...], str] = {
    (): "vit_tiny_r_s16_p8_224",
    (2, 2, 2, 2): "vit_small_r26_s32_224",
    (3, 4, 9): "vit_base_r50_s16_224",
    (3, 4, 6, 3): "vit_large_r50_s32_224",
}
RESNETS: Mapping[tuple[tuple[int, ...], float], str] = {
    ((3, 4, 6, 3), 1): "resnetv2_50x1_bit",
    ((3, 4, 6, 3), 3): "resnetv2_50x3_bit",
    ((3, 4, 23, 3), 1): "resnetv2_101x1_bit",
    ((3, 4, 23, 3), 3): "resnetv2_101x3_bit",
    ((3, 8, 36, 3), 2): "resnetv2_152x2_bit",
    ((3, 8, 36, 3), 4): "resnetv2_152x4_bit",
}


def recognise(shapes: Mapping[str, Shape]) -> bool:
    """Whether the names are those of timm's ViT, hybrid or BiT ResNet."""
    return any(name.endswith((PATCHES, "stages.0.blocks.0.conv1.weight")) for name in shapes)


def plan(shapes: Mapping[str, Shape], settings: SourceSettings) -> LoadPlan:
    """The model that the arrays fit, and the variant that a config.json of timm's names.

    Raises:
        UserError: an incomplete model, or one with components that vitlab's models do not have.
    """
    where = settings.where
    check_supported(shapes, where)
    landmark = PATCHES if any(name.endswith(PATCHES) for name in shapes) else ROOT
    names, dropped = _inside(shapes, prefix_before(shapes, landmark, where) or "")
    sources = {ours: ArraySource((theirs,)) for ours, theirs in names.items() if not ours.endswith(tuple(FOLDED))}
    config: ModelConfig
    if landmark == ROOT:
        hints = Hints(where, "erf", asked=settings.image_size)
        config = resnet_config(shapes_after(sources, shapes, where), hints)
    else:
        sources |= _folded(names)
        hints = _hints(_object(settings.config, "model_args"), settings)
        if "pos_embed" in sources and "cls_token" in sources:
            sources["pos_embed"] = ArraySource((names["pos_embed"],), _positions(sources, shapes, hints))
        config = vit_config(shapes_after(sources, shapes, where), hints)
    preprocessing = _preprocessing(config, settings)
    return LoadPlan("a model under timm's names", config, sources, preprocessing, dropped, _classes(settings))


def _inside(shapes: Iterable[str], prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """The names of the model under `prefix`, from ours to theirs; and what is left out, with the reason."""
    names, dropped = {}, {}
    for theirs in shapes:
        ours = _ours(theirs.removeprefix(prefix))
        reason = next((reason for pattern, reason in LEFT_OUT.items() if re.fullmatch(pattern, ours)), None)
        if not theirs.startswith(prefix):
            dropped[theirs] = "outside the model (another head, a decoder)"
        elif reason is not None:
            dropped[theirs] = reason
        else:
            names[ours] = theirs
    return names, dropped


def save(model: Model, path: Path) -> None:
    """Write a folder that `timm.create_model("local-dir:PATH", pretrained=True)` reads.

    Raises:
        UserError: the model has components that timm's lack, or is a hybrid or ResNet of a size that timm lacks.
    """
    check_limits(model, LIMITS)
    config = model.config
    architecture, arguments = _described(config)
    description = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "model_args": arguments,
        "pretrained_cfg": {
            **preprocessors.to_timm(model.preprocessing),
            # A ViT's positions fix the size of its images; a ResNet takes any.
            "fixed_input_size": isinstance(config, ViTConfig),
            "num_classes": config.num_classes,
            "custom_load": False,
        },
    }
    if model.classes:
        description["label_names"] = list(model.classes)
    state = {_theirs(name, config): tensor.contiguous() for name, tensor in state_of(model).items()}
    with new_folder(path) as folder:
        write_json(folder / "config.json", description)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _described(config: ModelConfig) -> tuple[str, dict[str, object]]:
    """Timm's name of the architecture, and every argument that makes it this model."""
    if isinstance(config, ResNetConfig):
        name = RESNETS.get((config.blocks, config.width))
        if name is None:
            raise UserError(f"timm builds no BiT ResNet of blocks {config.blocks} and width {config.width:g}")
        return name, {}
    arguments: dict[str, object] = {
        "img_size": list(config.image_hw),
        "patch_size": list(config.patch_hw) if isinstance(config.patch, tuple) else config.patch,
        "embed_dim": config.hidden,
        "depth": config.layers,
        "num_heads": config.heads,
        "mlp_ratio": config.mlp / config.hidden,
        "act_layer": "gelu_tanh" if config.gelu == "tanh" else "gelu",
        "class_token": config.head == "token",
        "global_pool": config.head if config.head == "token" else "avg",
        "fc_norm": False,
    }
    if int(config.hidden * (config.mlp / config.hidden)) != config.mlp:
        raise UserError(f"timm cannot hold an MLP of {config.mlp} beside a width of {config.hidden}")
    if config.resnet is None:
        patch = config.patch if isinstance(config.patch, int) else 0
        return NAMED.get((config.hidden, patch), ANY_PLAIN), arguments
    name = HYBRIDS.get(config.resnet.blocks)
    if name is None or config.resnet.width != 1:
        raise UserError(f"timm builds no hybrid with blocks {config.resnet.blocks} and width {config.resnet.width:g}")
    return name, arguments


def _ours(name: str) -> str:
    # A stem without stages is timm's complete backbone, which lacks the name "stem".
    name = re.sub(r"^patch_embed\.backbone\.(conv|norm)\.", r"patch_embed.backbone.stem.\1.", name)
    return re.sub(r"^pre_logits\.fc\.", "pre_logits.", name)


def _theirs(name: str, config: ModelConfig) -> str:
    if isinstance(config, ViTConfig) and config.resnet is not None and not config.resnet.blocks:
        return name.replace("patch_embed.backbone.stem.", "patch_embed.backbone.")
    return name


def _folded(names: Mapping[str, str]) -> dict[str, ArraySource]:
    """LayerScale multiplies a projection's output, so it is folded into the projection."""
    sources = {}
    for ours, theirs in names.items():
        for scale, projection in FOLDED.items():
            if ours.endswith(f".{scale}"):
                block = ours.removesuffix(scale)
                for leaf in ("weight", "bias"):
                    source = names.get(f"{block}{projection}.{leaf}")
                    if source is not None:
                        sources[f"{block}{projection}.{leaf}"] = ArraySource((source, theirs), layouts.scaled_rows)
    return sources


def _positions(sources: Mapping[str, ArraySource], shapes: Mapping[str, Shape], hints: Hints) -> Callable[..., Tensor]:
    after = shapes_after(sources, shapes, hints.where)
    if len(after["pos_embed"]) != 3 or has_class_row(after["pos_embed"][1], token_size(after, hints), hints):
        return as_is
    return layouts.without_class_row


def _hints(arguments: Mapping[str, object], settings: SourceSettings) -> Hints:
    name = arguments.get("act_layer", "gelu")
    if not isinstance(name, str) or name not in GELUS:
        raise UserError(f"{settings.where}: act_layer {name!r} is no GELU; vitlab's models have {', '.join(GELUS)}")
    heads = arguments.get("num_heads")
    return Hints(
        settings.where,
        GELUS[name],
        heads=heads if isinstance(heads, int) else None,
        image_size=as_size(arguments.get("img_size")) or as_size(_input_size(settings)),
        asked=settings.image_size,
    )


def _input_size(settings: SourceSettings) -> object:
    size = _object(settings.config, "pretrained_cfg").get("input_size")
    return size[1:] if isinstance(size, list) and len(size) == 3 else None


def _preprocessing(config: ModelConfig, settings: SourceSettings) -> Preprocessing:
    given = _object(settings.config, "pretrained_cfg")
    if not given:
        log.warning("%s: no preprocessing beside the weights: ImageNet's mean and std are assumed", settings.where)
        return preprocessors.imagenet(config.image_hw, "bicubic")
    found = preprocessors.from_timm(given, config.image_hw, settings.where)
    if settings.preprocessor:
        other = preprocessors.from_transformers(settings.preprocessor, config.image_hw, settings.where)
        preprocessors.check_agree(found, other, settings.where)
    return found


def _classes(settings: SourceSettings) -> tuple[str, ...] | None:
    names = settings.config.get("label_names")
    return tuple(str(name) for name in names) if isinstance(names, list) else None


def _object(values: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}
