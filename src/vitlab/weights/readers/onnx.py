"""ONNX files: the constants of a graph, under the names that the modules which use them once had.

Exporters keep the names of most arrays and lose those of transposed matrices and folded positions. A matrix is named
after the bias that is added to its product; two tables of positions without a name are the class token's and the rest.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import (
    MOST_ARRAYS,
    TORCH_TYPES,
    Declared,
    Shape,
    TensorFile,
    as_float32,
    check_declared,
    item_bytes,
    listed,
    shown,
)

# In the metadata of vitlab's own export: its config.json, and which of the graph's constants are the model's arrays.
CONFIG_KEY, ARRAYS_KEY = "vitlab", "vitlab.arrays"
MOST_BYTES = 2**31
NAMELESS = re.compile(r"onnx::\w+|val_\d+|\d+")
# ONNX numbers its types; these are the floating-point ones.
TYPES: Mapping[int, str] = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
Json = TypeVar("Json", dict[str, Any], list[Any])
CLASS_TOKEN, POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"


@dataclass(frozen=True)
class GraphArray:
    """The constants of the graph that make one array, and how."""

    sources: tuple[Any, ...]
    make: Callable[..., torch.Tensor]
    shape: Shape


def looks_like(head: bytes) -> bool:
    """Whether a file starts as ONNX's protocol buffer does: with its version, then the producer or the graph."""
    return len(head) > 3 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x3A, 0x42)


def open_onnx(path: Path) -> TensorFile:
    """The arrays of a graph that PyTorch exported from a model with a known naming, or that vitlab exported.

    Raises:
        UserError: onnx is not installed, or the file is damaged or keeps its arrays elsewhere.
    """
    where = str(path)
    model = _parsed(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    config, names = _metadata(where, metadata, CONFIG_KEY, {}), _metadata(where, metadata, ARRAYS_KEY, [])
    try:
        constants = _own_arrays(where, model.graph, names) if config else _named_arrays(where, model.graph)
    except TypeError as error:  # protobuf gives names that are not text as bytes
        raise UserError(f"{where}: a damaged ONNX file: it holds names that are not text; download it again") from error
    arrays = {name: Declared(constant.shape, "float32") for name, constant in constants.items()}

    def read(name: str) -> torch.Tensor:
        constant = constants[name]
        return constant.make(*(_values(source) for source in constant.sources)).contiguous()

    return TensorFile(where, "ONNX file", arrays, read, config)


def _parsed(path: Path) -> Any:
    where = str(path)
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{where}: is larger than the 2 GiB of an ONNX file; download it again")
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"{where}: ONNX needs onnx; install it with `pip install 'vitlab[onnx]'`") from error
    try:
        return onnx.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # protobuf's own errors have no common base that is public
        raise UserError(f"{where}: not an ONNX file, or a truncated or damaged one; download it again") from error


def _metadata(where: str, metadata: Mapping[str, str], key: str, default: Json) -> Json:
    try:
        value = json.loads(metadata[key]) if key in metadata else default
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: its metadata is not valid JSON ({shown(str(error))})") from error
    if not isinstance(value, type(default)):
        raise UserError(f"{where}: its metadata holds a {type(value).__name__} under '{key}'; export the model again")
    return value


def _own_arrays(where: str, graph: Any, names: Collection[object]) -> dict[str, GraphArray]:
    """The arrays of vitlab's own export."""
    kept = _initializers(where, graph)
    lost = [str(name) for name in names if not isinstance(name, str) or name not in kept]
    if lost or not names:
        gone = f"{len(lost)} of its arrays are missing ({listed(lost, 2)})" if lost else "it names no arrays"
        raise UserError(f"{where}: a damaged export of vitlab's: {gone}; export the model again")
    return {name: GraphArray((kept[name],), _same, _shape(where, kept[name])) for name in map(str, names)}


def _initializers(where: str, graph: Any) -> dict[str, Any]:
    if len(graph.initializer) > MOST_ARRAYS:
        raise UserError(f"{where}: holds {len(graph.initializer)} arrays, no model has more than {MOST_ARRAYS}")
    return {source.name: source for source in graph.initializer if source.data_type in TYPES}


def _named_arrays(where: str, graph: Any) -> dict[str, GraphArray]:
    """The arrays of anyone's graph, those without a name named after their place in it."""
    kept = _initializers(where, graph)
    shapes = {name: _shape(where, source) for name, source in kept.items()}
    found = {
        name: GraphArray((source,), _same, shapes[name])
        for name, source in kept.items()
        if not NAMELESS.fullmatch(name)
    }
    nameless = {name for name in kept if NAMELESS.fullmatch(name) and len(shapes[name]) > 1}
    for matrix, name in _named_by_bias(graph, nameless).items():
        nameless.discard(matrix)
        found[name] = GraphArray((kept[matrix],), _transposed, shapes[matrix][::-1])
    found |= _positions(found, {name: kept[name] for name in sorted(nameless)}, shapes)
    used = {source.name for constant in found.values() for source in constant.sources}
    return found | {name: GraphArray((kept[name],), _same, shapes[name]) for name in nameless - used}


def _named_by_bias(graph: Any, matrices: set[str]) -> dict[str, str]:
    """X @ matrix, to which "layer.bias" is added, is "layer.weight" transposed."""
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and len(node.input) == 2 and len(node.output) == 1 and node.input[1] in matrices
    }
    names = {}
    for node in graph.node:
        if node.op_type == "Add" and len(node.input) == 2:
            for product, bias in (tuple(node.input), tuple(node.input)[::-1]):
                if product in products and bias.endswith(".bias"):
                    names[products[product]] = bias.removesuffix("bias") + "weight"
    return names


def _positions(
    found: Mapping[str, GraphArray], nameless: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> dict[str, GraphArray]:
    """The class token's position (1, 1, D) and the patches' (1, P, D), which exporters cut apart."""
    tokens = [name for name in found if name.endswith(CLASS_TOKEN)]
    tables = [name for name in nameless if len(shapes[name]) == 3 and shapes[name][0] == 1]
    tables.sort(key=lambda name: shapes[name][1])
    if len(tokens) != 1 or len(tables) != 2:
        return {}
    first, rest = tables
    width = found[tokens[0]].shape[-1]
    if shapes[first] != (1, 1, width) or shapes[rest][2] != width:
        return {}
    name = tokens[0].removesuffix(CLASS_TOKEN) + POSITIONS
    shape = (1, 1 + shapes[rest][1], width)
    return {name: GraphArray((nameless[first], nameless[rest]), _one_after_another, shape)}


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _transposed(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.T


def _one_after_another(first: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    return torch.cat((first, rest), dim=1)


def _shape(where: str, source: Any) -> Shape:
    shape = check_declared(where, source.name, [int(side) for side in source.dims])
    item = item_bytes(TYPES[source.data_type])
    held = len(source.raw_data) if source.HasField("raw_data") else len(source.float_data) * item
    if source.data_location or source.external_data:
        raise UserError(
            f"{where}: keeps its arrays in other files; vitlab reads one file: export it without external data"
        )
    if held != math.prod(shape) * item:
        raise UserError(
            f"{where}: array '{shown(source.name)}' declares {math.prod(shape)} numbers and holds {held} bytes; "
            "download it again"
        )
    return shape


def _values(source: Any) -> torch.Tensor:
    shape = tuple(source.dims)
    if not source.HasField("raw_data"):
        return torch.tensor(np.array(source.float_data, dtype=np.float32)).reshape(shape)
    data = bytearray(source.raw_data)
    flat = torch.frombuffer(data, dtype=TORCH_TYPES[TYPES[source.data_type]]) if data else torch.empty(0)
    return as_float32(flat.reshape(shape))
