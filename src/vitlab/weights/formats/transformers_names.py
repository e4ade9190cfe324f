"""The names of Hugging Face transformers, both ways.

transformers 5 holds other names in memory than it saves; both are read, and the saved ones, which version 4 reads too,
are written.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from vitlab.weights.formats import layouts
from vitlab.weights.plan import ArraySource

STEM = r"embeddings\.patch_embeddings\.backbone\.(?:bit\.)?"
# From theirs to vitlab's, with query, key and value still apart.
RENAMES: Sequence[tuple[str, str]] = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (STEM + r"embedder\.convolution\.", "patch_embed.backbone.stem.conv."),
    (STEM + r"embedder\.norm\.", "patch_embed.backbone.stem.norm."),
    (STEM + r"encoder\.stages\.(\d+)\.layers\.", r"patch_embed.backbone.stages.\1.blocks."),
    (r"embedder\.convolution\.", "stem.conv."),
    (r"encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
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
THREE = ("query", "key", "value")
# LayerScale multiplies the output of these.
SCALES = {"attn.proj": "layer_scale1.lambda1", "mlp.fc2": "layer_scale2.lambda1"}
# From vitlab's to theirs, for what is one array on both sides.
SAVED: Mapping[str, str] = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
SAVED_IN_BLOCK: Mapping[str, str] = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def ours(name: str) -> str:
    """Vitlab's name for one of theirs, whose model's prefix has been taken off."""
    for pattern, replacement in RENAMES:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def vit_sources(names: Mapping[str, str]) -> dict[str, ArraySource]:
    """A ViT's arrays from `ours` names to those in the file: qkv stacked, LayerScale folded in."""
    sources = {}
    for name, source in names.items():
        block, _, inner = name.partition(".attn.")
        scale = next((scale for scale in SCALES.values() if name.endswith(f".{scale}")), None)
        if inner in ("query.weight", "query.bias"):
            leaf = inner.removeprefix("query.")
            three = [names.get(f"{block}.attn.{projection}.{leaf}") for projection in THREE]
            if None not in three:
                sources[f"{block}.attn.qkv.{leaf}"] = ArraySource(tuple(filter(None, three)), layouts.stacked)
        elif scale is None and not inner.startswith(THREE):
            sources.setdefault(name, ArraySource((source,)))
        elif scale is not None:
            sources |= _scaled(name.removesuffix(scale), scale, names)
    return sources


def _scaled(block: str, scale: str, names: Mapping[str, str]) -> dict[str, ArraySource]:
    projection = next(projection for projection, own in SCALES.items() if own == scale)
    keys = [f"{block}{projection}.{leaf}" for leaf in ("weight", "bias")]
    return {key: ArraySource((names[key], names[block + scale]), layouts.scaled_rows) for key in keys if key in names}


def vit_arrays(state: Mapping[str, Tensor], *, headless: bool) -> dict[str, Tensor]:
    """A ViT's arrays under the names that transformers saves."""
    root = "" if headless else "vit."
    arrays = {}
    for name, tensor in state.items():
        base, _, leaf = name.rpartition(".")
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", base):
            block = f"{root}encoder.layer.{match[1]}"
            if match[2] == "attn.qkv":
                for part, rows in zip(THREE, tensor.chunk(3), strict=True):
                    arrays[f"{block}.attention.attention.{part}.{leaf}"] = rows
            else:
                arrays[f"{block}.{SAVED_IN_BLOCK[match[2]]}.{leaf}"] = tensor
        elif base == "head":
            arrays[f"classifier.{leaf}"] = tensor
        elif name in SAVED:
            arrays[root + SAVED[name]] = tensor
        else:
            arrays[f"{root}{SAVED[base]}.{leaf}"] = tensor
    return arrays


def resnet_arrays(state: Mapping[str, Tensor], *, headless: bool) -> dict[str, Tensor]:
    """A BiT ResNet's arrays under the names that transformers saves."""
    root = "" if headless else "bit."
    arrays = {}
    for name, tensor in state.items():
        if name.startswith("head.fc."):
            arrays[name.replace("head.fc.", "classifier.1.")] = tensor.flatten(1) if tensor.dim() == 4 else tensor
        else:
            inner = re.sub(r"^stages\.(\d+)\.blocks\.", r"encoder.stages.\1.layers.", name)
            arrays[root + inner.replace("stem.conv.", "embedder.convolution.")] = tensor
    return arrays
