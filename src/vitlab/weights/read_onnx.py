"""ONNX files: the constants of a graph, under the names of the modules that use them."""

from pathlib import Path

from vitlab.errors import UserError
from vitlab.weights.tensors import TensorFile


def looks_like(head: bytes) -> bool:
    """Whether a file starts as ONNX's protocol buffer does: with its version, then the producer's name."""
    return len(head) > 3 and head[0] == 0x08 and head[1] < 0x40 and head[2] in (0x12, 0x3A, 0x42)


def open_onnx(path: Path) -> TensorFile:
    """Not yet."""
    raise UserError(f"{path}: is an ONNX file")
