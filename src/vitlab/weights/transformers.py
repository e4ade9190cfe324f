"""Hugging Face transformers: ViT, ViT-MAE, DINO, DINOv2, ViT-hybrid and BiT; folders with config.json.

transformers 5 holds other names in memory than it saves; both are read, and the saved ones are written.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vitlab.errors import UserError
from vitlab.files import write_json
from vitlab.models.build import Model
from vitlab.recipes.configs import Gelu, ModelConfig, ResNetConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights import layouts, preprocessors
from vitlab.weights.architecture import Known, as_size, resnet_config, shapes_after, vit_config
from vitlab.weights.exporting import Holds, check_holds, class_names, state_of
from vitlab.weights.folders import new_folder
from vitlab.weights.naming import check_native_parts, prefix_before
from vitlab.weights.plan import Part, Plan, Settings
from vitlab.weights.tensors import Shape, shown

log = logging.getLogger(__name__)

HOLDS = Holds("transformers", heads=["token"], representation=False, hybrids=False)
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
# Older names first; the replacements are vitlab's names, query, key and value apart.
STEM = r"embeddings\.patch_embeddings\.backbone\.(?:bit\.)?"
RENAMES: Sequence[tuple[str, str]] = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (STEM + r"embedder\.convolution\.", "patch_embed.backbone.stem.conv."),
    (STEM + r"embedder\.norm\.", "patch_embed.backbone.stem.norm."),
    (STEM + r"encoder\.stages\.(\d+)\.layers\.", r"patch_embed.backbone.stages.\1.blocks."),
    (r"(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.attention\.(?:attention\.)?(query|key|value)\.", r"\1.attn.\2."),
    (r"(blocks\.\d+)\.attention\.q_proj\.", r"\1.attn.query."),
    (r"(blocks\.\d+)\.attention\.k_proj\.", r"\1.attn.key."),
    (r"(blocks\.\d+)\.attention\.v_proj\.", r"\1.attn.value."),
    (r"(blocks\.\d+)\.attention\.(?:output\.dense|o_proj)\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"layernorm\.", "norm."),
)
RESNET_RENAMES: Sequence[tuple[str, str]] = (
    (r"embedder\.convolution\.", "stem.conv."),
    (r"encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
)
LEFT_OUT = {
    r"embeddings\.mask_token": "the token of masked training",
    r"pooler\..*": "the pooler, which classification does not use",
    r"decoder\..*": "the decoder of masked training",
}
FOLDED = {"attn.proj": "layer_scale1.lambda1", "mlp.fc2": "layer_scale2.lambda1"}


def recognise(shapes: Mapping[str, Shape]) -> bool:
    """Whether the names are those of transformers' ViT family or BiT."""
    return any(name.endswith((PATCHES, ROOT)) for name in shapes)


def plan(shapes: Mapping[str, Shape], settings: Settings) -> Plan:
    """The model that config.json and the arrays describe.

    Raises:
        UserError: no whole model, or one with parts that vitlab's models do not have.
    """
    where = settings.where
    check_native_parts(shapes, where)
    is_vit = any(name.endswith(PATCHES) for name in shapes)
    prefix = prefix_before(shapes, PATCHES if is_vit else ROOT, where) or ""
    inner = {name.removeprefix(prefix): name for name in shapes if name.startswith(prefix)}
    dropped = {
        name: reason
        for short, name in inner.items()
        for pattern, reason in LEFT_OUT.items()
        if re.fullmatch(pattern, short)
    }
    dropped |= {name: "the decoder of masked training" for name in shapes if name.startswith("decoder.")}
    renames = RENAMES if is_vit else RESNET_RENAMES
    names = {_renamed(short, renames): name for short, name in inner.items() if name not in dropped}
    head = _head(shapes, is_vit)
    if is_vit:
        parts, dropped_head = _vit_parts(names), _two_part_head(head, names, shapes, settings)
        parts |= {} if dropped_head else head
        scaled = any(name.endswith(tuple(FOLDED.values())) for name in names)
        config: ModelConfig = vit_config(shapes_after(parts, shapes, where), _known(settings, scaled=scaled))
        dropped |= dropped_head
    else:
        parts = {ours: Part((theirs,)) for ours, theirs in names.items()} | head
        known = Known(where, "erf", asked=settings.image_size)
        config = resnet_config(shapes_after(parts, shapes, where), known)
    return Plan("a model of transformers", config, parts, _preprocessing(config, settings), dropped, _classes(config, settings))


def save(model: Model, path: Path) -> None:
    """Write a folder that `from_pretrained` of ViTForImageClassification or BitForImageClassification reads.

    Raises:
        UserError: the model has parts that transformers' has not.
    """
    check_holds(model, HOLDS)
    state = state_of(model)
    if isinstance(model.config, ResNetConfig):
        description, arrays = _bit_config(model.config), _bit_arrays(state)
    else:
        description, arrays = _vit_config(model), _vit_arrays(state, headless=model.config.num_classes == 0)
    names = class_names(model)
    description["id2label"] = {str(index): name for index, name in names.items()}
    description["label2id"] = {name: index for index, name in names.items()}
    with new_folder(path) as folder:
        write_json(folder / "config.json", description)
        write_json(folder / "preprocessor_config.json", preprocessors.to_transformers(model.preprocessing))
        save_file({name: array.contiguous() for name, array in arrays.items()}, folder / "model.safetensors", {"format": "pt"})
