"""What a weights file declares, and how one of its arrays is read: nothing is allocated before it is asked for."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from vitlab.errors import UserError

Shape = tuple[int, ...]

TORCH_TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# Larger than any type that arrays are declared in, for those that are not weights.
WIDEST_BYTES = 16
# PyTorch counts elements in 63 bits; a declared size beyond this is an attack or a broken header, not a model.
MOST_ELEMENTS = 2**40
MOST_ARRAYS = 100_000
MOST_DIMENSIONS = 8
# Trained weights hardly compress; a file that unfolds further than this is a bomb.
MOST_EXPANSION = 8
EXPANSION_SLACK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Declared:
    """One array as the file's header declares it. `dtype` is numpy's name of the type ("float32", ...)."""

    shape: Shape
    dtype: str


@dataclass(frozen=True)
class TensorFile:
    """The arrays of one or more weights files.

    Attributes:
        where: the file or folder, for messages.
        kind: what it is, for messages: "safetensors file", "npz archive", ...
        arrays: what is declared, by name; the declared sizes have been checked against the file's own size.
        read: name -> its values as a new float32 tensor. Raises UserError if the file is damaged there.
        config: the vitlab config.json that the file itself carries (vitlab's ONNX export); empty where it has none.
    """

    where: str
    kind: str
    arrays: Mapping[str, Declared]
    read: Callable[[str], torch.Tensor]
    config: Mapping[str, object] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, Shape]:
        """The declared shapes by name."""
        return {name: array.shape for name, array in self.arrays.items()}


def item_bytes(dtype: str) -> int:
    """Bytes of one number of a declared type, or an upper bound for a type that weights do not have."""
    return TORCH_TYPES[dtype].itemsize if dtype in TORCH_TYPES else WIDEST_BYTES


def check_declared(where: str, name: str, shape: Iterable[object]) -> Shape:
    """The declared shape as a tuple of ints; refuses what no model has.

    Raises:
        UserError: a side that is not a whole number >= 0, too many sides, or more elements than memory can count.
    """
    sides = tuple(shape)
    checked = tuple(side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side >= 0)
    if len(checked) != len(sides) or len(sides) > MOST_DIMENSIONS or math.prod(checked) > MOST_ELEMENTS:
        raise UserError(f"{where}: array '{shown(name)}' declares an impossible shape; download it again")
    return checked


def check_expansion(where: str, arrays: Mapping[str, Declared], file_bytes: int) -> None:
    """Refuse a file that would unfold to many times its own size.

    Raises:
        UserError: it would.
    """
    declared = sum(math.prod(array.shape) * item_bytes(array.dtype) for array in arrays.values())
    if declared > MOST_EXPANSION * file_bytes + EXPANSION_SLACK_BYTES:
        raise UserError(
            f"{where}: a file of {file_bytes} bytes that declares arrays of {declared} bytes is treated as a "
            "compression bomb; save it uncompressed if it is not"
        )


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Its values in float32, one after another in memory; the same memory where they are already."""
    return tensor.to(torch.float32, memory_format=torch.contiguous_format).contiguous()


def merge(where: str, files: list[TensorFile]) -> TensorFile:
    """Several files (shards) as one.

    Raises:
        UserError: a name stands in two of them.
    """
    if len(files) == 1:
        return files[0]
    home: dict[str, TensorFile] = {}
    for file in files:
        for name in file.arrays:
            if name in home:
                raise UserError(
                    f"{where}: array '{shown(name)}' is in {home[name].where} and in {file.where}; keep one"
                )
            home[name] = file
    arrays = {name: file.arrays[name] for name, file in home.items()}
    return TensorFile(where, files[0].kind, arrays, lambda name: home[name].read(name))


def printable(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shown(name: str) -> str:
    """A name or a value from a file, safe and short enough for a message."""
    text = printable(name)
    return text if len(text) <= 80 else text[:77] + "..."


def listed(names: Iterable[str], most: int = 4) -> str:
    """'a', 'b' and 7 more: names for a one-line message."""
    every = sorted(names)
    head = ", ".join(f"'{shown(name)}'" for name in every[:most])
    return head if len(every) <= most else f"{head} and {len(every) - most} more"
