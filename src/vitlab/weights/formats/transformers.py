"""Hugging Face transformers: ViT, ViT-MAE, DINOv2, ViT-hybrid and BiT, with the config.json beside them."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vitlab.errors import UserError
from vitlab.files import write_json
from vitlab.models.build import Model
from vitlab.recipes.configs import Gelu, ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights.formats import preprocessors
from vitlab.weights.formats import transformers_names as naming
from vitlab.weights.formats.architecture import (
    Hints,
    as_size,
    check_supported,
    prefix_before,
    resnet_config,
    shapes_after,
    vit_config,
)
from vitlab.weights.formats.exporting import FormatLimits, check_limits, class_names, new_folder, state_of
from vitlab.weights.plan import ArraySource, LoadPlan, SourceSettings
from vitlab.weights.readers.tensors import Shape

log = logging.getLogger(__name__)

LIMITS = FormatLimits("transformers", heads=["token"], representation=False, hybrids=False)
PATCHES = "embeddings.patch_embeddings.projection.weight"
ROOT = "embedder.convolution.weight"
GELUS: Mapping[str, Gelu] = {
    "gelu": "erf",
    "gelu_python": "erf",
    "gelu_new": "tanh",
    "gelu_fast": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_accurate": "tanh",
}
LEFT_OUT = {
    r"embeddings\.mask_token": "the token of masked training",
    r"pooler\..*": "the pooler, which classification does not use",
    r"decoder\..*": "the decoder of masked training",
}
# These were trained with ImageNet's statistics, the rest with 0.5.
IMAGENET_KINDS = ("dinov2", "vit_mae", "vit_msn")
TWO_PART_HEAD = "a head on the class token and the mean of the patches, which vitlab's models do not have"


def recognise(shapes: Mapping[str, Shape]) -> bool:
    """Whether the names are those of transformers' ViT family or BiT."""
    return any(name.endswith((PATCHES, ROOT)) for name in shapes)


def plan(shapes: Mapping[str, Shape], settings: SourceSettings) -> LoadPlan:
    """The model that config.json and the arrays describe.

    Raises:
        UserError: an incomplete model, or one with components that vitlab's models do not have.
    """
    where = settings.where
    check_supported(shapes, where)
    is_vit = any(name.endswith(PATCHES) for name in shapes)
    prefix = prefix_before(shapes, PATCHES if is_vit else ROOT, where) or ""
    inner = {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
    inner |= {name: name for name in shapes if name.startswith(("decoder.", "classifier."))}
    dropped: dict[str, str] = {}
    for short, name in inner.items():
        reason = next((reason for pattern, reason in LEFT_OUT.items() if re.fullmatch(pattern, short)), None)
        if reason is not None:
            dropped[name] = reason
    names = {naming.ours(short): name for short, name in inner.items() if name not in dropped}
    sources: dict[str, ArraySource]
    config: ModelConfig
    if is_vit:
        sources, config = _vit(names, shapes, settings, dropped)
    else:
        sources, config = _resnet(names, shapes, settings)
    preprocessing = _preprocessing(config, settings, dino=_has_scales(names))
    return LoadPlan("a model of transformers", config, sources, preprocessing, dropped, _classes(config, settings))


def save(model: Model, path: Path) -> None:
    """Write a folder that `from_pretrained` of ViTForImageClassification or BitForImageClassification reads.

    A model without a head is written as ViTModel or BitModel.

    Raises:
        UserError: the model has components that transformers' lack.
    """
    check_limits(model, LIMITS)
    config, headless = model.config, model.config.num_classes == 0
    if isinstance(config, ResNetConfig):
        description = _bit_description(config, headless=headless)
        arrays = naming.resnet_arrays(state_of(model), headless=headless)
    else:
        description = _vit_description(config, headless=headless)
        arrays = naming.vit_arrays(state_of(model), headless=headless)
    names = class_names(model)
    description["id2label"] = {str(index): name for index, name in names.items()}
    description["label2id"] = {name: index for index, name in names.items()}
    contiguous = {name: array.contiguous() for name, array in arrays.items()}
    with new_folder(path) as folder:
        write_json(folder / "config.json", description)
        write_json(folder / "preprocessor_config.json", preprocessors.to_transformers(model.preprocessing))
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})


def _vit(
    names: Mapping[str, str], shapes: Mapping[str, Shape], settings: SourceSettings, dropped: dict[str, str]
) -> tuple[dict[str, ArraySource], ViTConfig]:
    sources = naming.vit_sources({name: source for name, source in names.items() if not name.startswith("classifier.")})
    head, norm = shapes.get("classifier.weight", ()), shapes.get(names.get("norm.weight", ""), ())
    if len(head) == 2 and norm and head[1] == 2 * norm[0]:
        log.warning("%s: %s: left out; the model gives features", settings.where, TWO_PART_HEAD)
        dropped |= {name: TWO_PART_HEAD for name in ("classifier.weight", "classifier.bias") if name in shapes}
    else:
        leaves = [leaf for leaf in ("weight", "bias") if f"classifier.{leaf}" in shapes]
        sources |= {f"head.{leaf}": ArraySource((f"classifier.{leaf}",)) for leaf in leaves}
    hints = _hints(settings, scaled=_has_scales(names))
    return sources, vit_config(shapes_after(sources, shapes, settings.where), hints)


def _has_scales(names: Iterable[str]) -> bool:
    return any(name.endswith(tuple(naming.SCALES.values())) for name in names)


def _resnet(
    names: Mapping[str, str], shapes: Mapping[str, Shape], settings: SourceSettings
) -> tuple[dict[str, ArraySource], ResNetConfig]:
    kind, padding = settings.config.get("layer_type", "preactivation"), settings.config.get("global_padding")
    if kind != "preactivation" or padding is not None:
        raise UserError(
            f"{settings.where}: a BiT of layer_type {kind!r} and global_padding {padding!r}; "
            "vitlab's ResNets are BiT's own: 'preactivation' and null"
        )
    heads = {"classifier.1.weight": "head.fc.weight", "classifier.1.bias": "head.fc.bias"}
    sources = {heads.get(name, name): ArraySource((source,)) for name, source in names.items()}
    if "head.fc.weight" in sources:
        sources["head.fc.weight"] = ArraySource(("classifier.1.weight",), _as_convolution)
    hints = Hints(settings.where, "erf", asked=settings.image_size)
    return sources, resnet_config(shapes_after(sources, shapes, settings.where), hints)


def _as_convolution(weight: Tensor) -> Tensor:
    return weight[:, :, None, None]


def _hints(settings: SourceSettings, *, scaled: bool) -> Hints:
    """What config.json says; where there is none, the defaults of ViTConfig, or of Dinov2Config with LayerScale."""
    values, where = settings.config, settings.where
    activation = values.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in GELUS:
        raise UserError(f"{where}: hidden_act {activation!r} is no GELU; vitlab's models have {', '.join(GELUS)}")
    heads, eps = values.get("num_attention_heads"), values.get("layer_norm_eps", 1e-6 if scaled else 1e-12)
    if not isinstance(eps, float | int) or not 0 < eps < 1:
        raise UserError(f"{where}: config.json has layer_norm_eps {eps!r}, a small number above 0 was expected")
    return Hints(
        where,
        GELUS[activation],
        norm_eps=float(eps),
        heads=heads if isinstance(heads, int) and heads > 0 else None,
        image_size=as_size(values.get("image_size")),
        asked=settings.image_size,
    )


def _preprocessing(config: ModelConfig, settings: SourceSettings, *, dino: bool) -> Preprocessing:
    if settings.preprocessor:
        return preprocessors.from_transformers(settings.preprocessor, config.image_hw, settings.where)
    imagenet = dino or settings.config.get("model_type") in IMAGENET_KINDS
    statistics = "ImageNet's mean and std" if imagenet else "mean and std 0.5"
    log.warning("%s: no preprocessor_config.json beside the weights: %s are assumed", settings.where, statistics)
    return preprocessors.imagenet(config.image_hw, "bicubic") if imagenet else Preprocessing(config.image_hw)


def _classes(config: ModelConfig, settings: SourceSettings) -> tuple[str, ...] | None:
    """The names in id2label; transformers fills it with LABEL_0, LABEL_1, ... where nobody named them."""
    given = settings.config.get("id2label")
    if not isinstance(given, dict) or set(given) != {str(index) for index in range(config.num_classes)}:
        return None
    names = tuple(str(given[str(index)]) for index in range(config.num_classes))
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _vit_description(config: ViTConfig, *, headless: bool) -> dict[str, object]:
    square = isinstance(config.image_size, int)
    return {
        "architectures": ["ViTModel" if headless else "ViTForImageClassification"],
        "model_type": "vit",
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp,
        "hidden_act": "gelu_pytorch_tanh" if config.gelu == "tanh" else "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": config.norm_eps,
        "image_size": config.image_size if square else list(config.image_hw),
        "patch_size": config.patch if isinstance(config.patch, int) else list(config.patch),
        "num_channels": 3,
        "qkv_bias": True,
        "dtype": "float32",
    }


def _bit_description(config: ResNetConfig, *, headless: bool) -> dict[str, object]:
    root, *inner = config.widths
    return {
        "architectures": ["BitModel" if headless else "BitForImageClassification"],
        "model_type": "bit",
        "embedding_size": root,
        "hidden_sizes": [4 * width for width in inner],
        "depths": list(config.blocks),
        "layer_type": "preactivation",
        "hidden_act": "relu",
        "global_padding": None,
        "num_groups": 32,
        "num_channels": 3,
        "width_factor": 1,
        "dtype": "float32",
    }
