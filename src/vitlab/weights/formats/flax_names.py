"""Which Flax array is which of ours, and how the one becomes the other (paper facts: checkpoints)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from vitlab.weights.formats import layouts
from vitlab.weights.plan import as_is


def _one(tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
    return (tensor,)


def _transposed(tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
    return (layouts.transposed(tensor),)


def _to_hwio(tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
    return (layouts.conv_to_hwio(tensor),)


def _out_to_flax(tensor: Tensor, heads: int) -> tuple[Tensor, ...]:
    return (layouts.out_weight_to_flax(tensor, heads),)


@dataclass(frozen=True)
class FlaxArray:
    """One of our arrays, the Flax arrays it is made of, and both ways between them.

    `go` takes our array and the number of attention heads.
    """

    ours: str
    theirs: tuple[str, ...]
    come: Callable[..., Tensor] = as_is
    go: Callable[[Tensor, int], tuple[Tensor, ...]] = _one


@dataclass(frozen=True)
class Numbering:
    """How a version of Flax numbered the layers of an encoder block."""

    second_norm: str
    attention: str
    mlp: str


ORIGINAL = Numbering("LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")
LINEN = Numbering("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")


def _dense(ours: str, theirs: str) -> list[FlaxArray]:
    return [
        FlaxArray(f"{ours}.weight", (f"{theirs}/kernel",), layouts.transposed, _transposed),
        FlaxArray(f"{ours}.bias", (f"{theirs}/bias",)),
    ]


def _norm(ours: str, theirs: str) -> list[FlaxArray]:
    return [FlaxArray(f"{ours}.weight", (f"{theirs}/scale",)), FlaxArray(f"{ours}.bias", (f"{theirs}/bias",))]


def _group_norm(ours: str, theirs: str, scale: str, bias: str) -> list[FlaxArray]:
    return [
        FlaxArray(f"{ours}.weight", (f"{theirs}/{scale}",), layouts.flat),
        FlaxArray(f"{ours}.bias", (f"{theirs}/{bias}",), layouts.flat),
    ]


def _conv(ours: str, theirs: str) -> FlaxArray:
    return FlaxArray(f"{ours}.weight", (f"{theirs}/kernel",), layouts.conv_from_hwio, _to_hwio)


TOP = [
    FlaxArray("cls_token", ("cls",)),
    _conv("patch_embed.proj", "embedding"),
    FlaxArray("patch_embed.proj.bias", ("embedding/bias",)),
    *_norm("norm", "Transformer/encoder_norm"),
    *_dense("pre_logits", "pre_logits"),
    *_dense("head", "head"),
]
POSITIONS = "Transformer/posembed_input/pos_embedding"
# big_vision adds positions before it puts the class token in front, so this one has no row for it.
PATCH_POSITIONS = "pos_embedding"


def block(ours: str, theirs: str, numbering: Numbering) -> list[FlaxArray]:
    """The rows of one encoder block, `ours` such as "blocks.0", `theirs` such as "Transformer/encoderblock_0"."""
    attention = f"{theirs}/{numbering.attention}"
    three = ("query", "key", "value")
    kernels, biases = ([f"{attention}/{part}/{leaf}" for part in three] for leaf in ("kernel", "bias"))
    return [
        *_norm(f"{ours}.norm1", f"{theirs}/LayerNorm_0"),
        FlaxArray(f"{ours}.attn.qkv.weight", tuple(kernels), layouts.qkv_weight_from_flax, layouts.qkv_weight_to_flax),
        FlaxArray(f"{ours}.attn.qkv.bias", tuple(biases), layouts.qkv_bias_from_flax, layouts.qkv_bias_to_flax),
        FlaxArray(f"{ours}.attn.proj.weight", (f"{attention}/out/kernel",), layouts.out_weight_from_flax, _out_to_flax),
        FlaxArray(f"{ours}.attn.proj.bias", (f"{attention}/out/bias",)),
        *_norm(f"{ours}.norm2", f"{theirs}/{numbering.second_norm}"),
        *_dense(f"{ours}.mlp.fc1", f"{theirs}/{numbering.mlp}/Dense_0"),
        *_dense(f"{ours}.mlp.fc2", f"{theirs}/{numbering.mlp}/Dense_1"),
    ]


def stem(blocks: Sequence[int]) -> list[FlaxArray]:
    """The rows of a hybrid's stem with that many units in each stage."""
    root = "patch_embed.backbone"
    rows = [_conv(f"{root}.stem.conv", "conv_root"), *_group_norm(f"{root}.stem.norm", "gn_root", "scale", "bias")]
    for stage, units in enumerate(blocks):
        for unit in range(units):
            ours, theirs = f"{root}.stages.{stage}.blocks.{unit}", f"block{stage + 1}/unit{unit + 1}"
            for number in (1, 2, 3):
                rows.append(_conv(f"{ours}.conv{number}", f"{theirs}/conv{number}"))
                rows += _group_norm(f"{ours}.norm{number}", f"{theirs}/gn{number}", "scale", "bias")
            if unit == 0:
                rows.append(_conv(f"{ours}.downsample.conv", f"{theirs}/conv_proj"))
                rows += _group_norm(f"{ours}.downsample.norm", f"{theirs}/gn_proj", "scale", "bias")
    return rows


def resnet(blocks: Sequence[int]) -> list[FlaxArray]:
    """The rows of a BiT ResNet, under TensorFlow's names."""
    conv = "standardized_conv2d"
    rows = [_conv("stem.conv", f"resnet/root_block/{conv}")]
    for stage, units in enumerate(blocks):
        for unit in range(units):
            ours, theirs = f"stages.{stage}.blocks.{unit}", f"resnet/block{stage + 1}/unit{unit + 1:02d}"
            for number, letter in enumerate("abc", 1):
                rows.append(_conv(f"{ours}.conv{number}", f"{theirs}/{letter}/{conv}"))
                rows += _group_norm(f"{ours}.norm{number}", f"{theirs}/{letter}/group_norm", "gamma", "beta")
            if unit == 0:
                rows.append(_conv(f"{ours}.downsample.conv", f"{theirs}/a/proj/{conv}"))
    return [
        *rows,
        *_group_norm("norm", "resnet/group_norm", "gamma", "beta"),
        _conv("head.fc", "resnet/head/conv2d"),
        FlaxArray("head.fc.bias", ("resnet/head/conv2d/bias",)),
    ]
