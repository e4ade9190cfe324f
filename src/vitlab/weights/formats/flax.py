"""Flax checkpoints in .npz: the original ViT's, Linen's and big_vision's, with scanned layers, hybrids and BiT.

Out goes the original's numbering (paper facts: checkpoints), whichever came in.
"""

import dataclasses
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from vitlab.models.build import Model
from vitlab.recipes.configs import ViTConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights.formats import flax_names, layouts
from vitlab.weights.formats.architecture import (
    MOST_LAYERS,
    Hints,
    check_supported,
    has_class_row,
    resnet_config,
    shapes_after,
    token_size,
    vit_config,
)
from vitlab.weights.formats.exporting import FormatLimits, check_limits, state_of, write_file
from vitlab.weights.formats.flax_names import LINEN, ORIGINAL, PATCH_POSITIONS, POSITIONS, FlaxArray
from vitlab.weights.plan import ArraySource, LoadPlan, SourceSettings, as_is
from vitlab.weights.readers.tensors import Shape

log = logging.getLogger(__name__)

LIMITS = FormatLimits("flax", gelus=["tanh"], norm_eps=1e-6, preprocessing=Preprocessing())
PREFIXES = ("params/", "opt/target/", "optimizer/target/")
SCANNED = "Transformer/encoderblock"
# TensorFlow numbers layers of one name in the order of their making; some BiT files keep these numbers.
NUMBERED = re.compile(r"/(standardized_conv2d|group_norm|conv2d)_\d+(?=/|$)")


def recognise(shapes: Mapping[str, Shape]) -> bool:
    """Whether the names are those of a Flax ViT or a BiT ResNet."""
    bare = {name.removeprefix(_prefix(shapes)) for name in shapes}
    return any(name.startswith(("Transformer/encoder", "resnet/root_block/")) for name in bare)


def plan(shapes: Mapping[str, Shape], settings: SourceSettings) -> LoadPlan:
    """The model that the arrays fit; its grid from a square test, or from the image size that was asked for.

    Raises:
        UserError: the model is incomplete.
    """
    check_supported(shapes, settings.where)
    prefix = _prefix(shapes)
    # Our names for theirs: without prefix, without TensorFlow's numbers.
    names = {NUMBERED.sub(r"/\1", name.removeprefix(prefix)): name for name in shapes if name.startswith(prefix)}
    dropped = {name: "training state beside the parameters" for name in shapes if not name.startswith(prefix)}
    hints = Hints(settings.where, gelu="tanh", heads=_heads(shapes), asked=settings.image_size)
    if "resnet/root_block/standardized_conv2d/kernel" in names:
        sources = _sources(flax_names.resnet(_units(names, r"resnet/block(\d+)/unit(\d+)/.*")), names)
        config = resnet_config(shapes_after(sources, shapes, settings.where), hints)
        return LoadPlan("a BiT checkpoint", config, sources, Preprocessing(), dropped)
    sources = _vit_sources(names, shapes, hints)
    vit = vit_config(shapes_after(sources, shapes, settings.where), hints)
    if vit.position == "none" and not _is_original(names):
        # big_vision's fixed positions are not parameters, and it has no way to do without any.
        log.info("%s: no position embeddings: big_vision's fixed ones, sincos2d, are assumed", settings.where)
        vit = dataclasses.replace(vit, position="sincos2d")
    return LoadPlan("a Flax ViT", vit, sources, Preprocessing(), dropped)


def save(model: Model, path: Path) -> None:
    """Write a .npz under the original's names; BiT ResNets under TensorFlow's.

    Raises:
        UserError: the model has components that these files have no place for.
    """
    check_limits(model, LIMITS)
    config, state = model.config, state_of(model)
    if isinstance(config, ViTConfig):
        rows = [*flax_names.TOP, FlaxArray("pos_embed", (POSITIONS,))]
        for layer in range(config.layers):
            rows += flax_names.block(f"blocks.{layer}", f"{SCANNED}_{layer}", ORIGINAL)
        rows += flax_names.stem(config.resnet.blocks) if config.resnet else []
        heads = config.heads
    else:
        rows, heads = flax_names.resnet(config.blocks), 0
    write_file(path, _npz(rows, state, heads), example="model.npz")


def _npz(rows: Iterable[FlaxArray], state: dict[str, Tensor], heads: int) -> bytes:
    arrays = {}
    for row in rows:
        if row.ours in state:
            for name, tensor in zip(row.theirs, row.go(state.pop(row.ours), heads), strict=True):
                arrays[name] = np.ascontiguousarray(tensor.numpy())
    assert not state, f"no place for {sorted(state)}"
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _prefix(names: Iterable[str]) -> str:
    every = list(names)
    return next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in every)), "")


def _heads(shapes: Mapping[str, Shape]) -> int | None:
    """Flax keeps the heads apart: the second last axis of a query's bias, whether stacked or not."""
    return next((shape[-2] for name, shape in shapes.items() if name.endswith("/query/bias") and len(shape) > 1), None)


def _is_original(names: Iterable[str]) -> bool:
    return any("/MlpBlock_3/" in name for name in names)


def _sources(rows: Iterable[FlaxArray], names: Mapping[str, str]) -> dict[str, ArraySource]:
    return {
        row.ours: ArraySource(tuple(names[name] for name in row.theirs), row.come)
        for row in rows
        if all(name in names for name in row.theirs)
    }


def _vit_sources(names: Mapping[str, str], shapes: Mapping[str, Shape], hints: Hints) -> dict[str, ArraySource]:
    numbering = ORIGINAL if _is_original(names) else LINEN
    rows = [*flax_names.TOP, *flax_names.stem(_units(names, r"block(\d+)/unit(\d+)/.*"))]
    for layer in range(_largest(names, rf"{SCANNED}_(\d+)/.*") + 1):
        rows += flax_names.block(f"blocks.{layer}", f"{SCANNED}_{layer}", numbering)
    sources = _sources(rows, names)
    for row in flax_names.block("blocks.{}", SCANNED, numbering):
        if all(name in names for name in row.theirs):
            sources |= _scanned(row, names, shapes)
    return sources | _positions(sources, names, shapes, hints)


def _scanned(row: FlaxArray, names: Mapping[str, str], shapes: Mapping[str, Shape]) -> dict[str, ArraySource]:
    """One part for every layer of arrays that are stacked along a first axis."""
    sources = tuple(names[name] for name in row.theirs)
    layers = min(MOST_LAYERS, *(shapes[source][0] if shapes[source] else 0 for source in sources))

    def layer_of(layer: int) -> Callable[..., Tensor]:
        return lambda *stacks: row.come(*(stack[layer] for stack in stacks))

    return {row.ours.format(layer): ArraySource(sources, layer_of(layer)) for layer in range(layers)}


def _positions(
    sources: Mapping[str, ArraySource], names: Mapping[str, str], shapes: Mapping[str, Shape], hints: Hints
) -> dict[str, ArraySource]:
    name = names.get(POSITIONS) or names.get(PATCH_POSITIONS)
    if name is None:
        return {}
    make: Callable[..., Tensor] = as_is
    if "cls_token" in sources and len(shapes[name]) == 3:
        token_hw = token_size(shapes_after(sources, shapes, hints.where), hints)
        if PATCH_POSITIONS in names or not has_class_row(shapes[name][1], token_hw, hints):
            make = layouts.without_class_row
    return {"pos_embed": ArraySource((name,), make)}


def _units(names: Iterable[str], pattern: str) -> Sequence[int]:
    """Units of every stage, counted by the largest number."""
    most: Counter[int] = Counter()
    for name in names:
        if match := re.fullmatch(pattern, name):
            stage, unit = int(match[1]), int(match[2])
            if stage <= MOST_LAYERS and unit <= MOST_LAYERS:
                most[stage] = max(most[stage], unit)
    return [most[stage] for stage in range(1, max(most, default=0) + 1)]


def _largest(names: Iterable[str], pattern: str) -> int:
    numbers = [int(match[1]) for name in names if (match := re.fullmatch(pattern, name))]
    return max((number for number in numbers if number < MOST_LAYERS), default=-1)
