"""What a pickle says, without doing any of it: the instructions are followed on plain values, nothing is imported.

`outline` understands what `torch.save` writes for dictionaries of tensors; every other instruction is refused.
"""

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import shown

MOST_PICKLE_BYTES = 16 * 2**20
DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}
# Types that training loops keep beside the weights; they are recognised and never read.
OTHER_STORAGES = {
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
REBUILD, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
MADE_EMPTY = ("collections.OrderedDict", "argparse.Namespace")
ALLOWED = {
    REBUILD,
    PARAMETER,
    *MADE_EMPTY,
    *(f"torch.{name}" for name in (*DTYPES, *OTHER_STORAGES)),
}


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: the entry that holds it, its type, and how many the pickle says it has."""

    key: str
    dtype: str
    elements: int


@dataclass(frozen=True)
class TensorOutline:
    """A tensor as the pickle describes it."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class GlobalName:
    """A global that the pickle names; never imported."""

    name: str


class UnknownError(Exception):
    """An instruction that no dictionary of tensors needs."""


MARK = object()
# What following broken instructions can raise.
DAMAGE = (
    UnknownError,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    AttributeError,
    RecursionError,
    Warning,  # pickletools warns of odd escapes in names
)


def globals_of(path: Path) -> list[str]:
    """The globals that a pickle file names and is not known to be harmless, at most four, as far as it can be read."""
    with path.open("rb") as file:
        data = file.read(MOST_PICKLE_BYTES)
    found: dict[str, None] = {}
    try:
        for name in _globals(data):
            if name not in ALLOWED:
                found[shown(name)] = None
    except DAMAGE:
        return list(found)[:4]
    return list(found)[:4]


def outline(where: str, data: bytes) -> Any:
    """Dictionaries, lists and `TensorOutline`s as the pickle describes them.

    Raises:
        UserError: names a global beyond those of plain tensors, or holds what `torch.save` does not write.
    """
    try:
        foreign = sorted({shown(name) for name in _globals(data) if name not in ALLOWED})
    except DAMAGE as error:
        raise _damaged(where, error) from error
    if foreign:
        raise UserError(
            f"{where}: its pickle would call {', '.join(foreign[:4])}; vitlab executes nothing: save the "
            "state_dict alone, or as safetensors"
        )
    try:
        return _followed(data)
    except DAMAGE as error:
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> UserError:
    return UserError(f"{where}: a damaged PyTorch file, or not one of tensors ({shown(str(error))}); download it again")


def _globals(data: bytes) -> Iterator[str]:
    """Every global named, also through STACK_GLOBAL, whose names are the strings pushed or fetched before it."""
    strings: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(strings[-2:]) or "an unnamed global"
        elif opcode.name in ("EXT1", "EXT2", "EXT4"):
            yield f"copyreg extension {argument}"
        elif "UNICODE" in opcode.name or opcode.name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
            strings.append(str(argument))
        elif opcode.name == "MEMOIZE" and strings:
            memo[len(memo)] = strings[-1]
        elif opcode.name.endswith("PUT") and strings and isinstance(argument, int):
            memo[argument] = strings[-1]
        elif opcode.name.endswith("GET") and argument in memo:
            strings.append(memo[argument])


def _followed(data: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in ARGUMENTS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(GlobalName(str(argument).replace(" ", ".")))
        elif name in STEPS:
            STEPS[name](stack)
        elif name not in ("PROTO", "FRAME"):
            raise UnknownError(f"pickle instruction {name}")
    raise UnknownError("the pickle has no end")


def _since_mark(stack: list[Any]) -> list[Any]:
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is MARK:
            items = stack[index + 1 :]
            del stack[index:]
            return items
    raise UnknownError("a tuple without its start")


def _take(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise UnknownError("values are missing")
    items = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return items


def _put_pairs(stack: list[Any], items: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, dict) or len(items) % 2:
        raise UnknownError("items outside a dictionary")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, str | int):
            target[key] = value


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise UnknownError("items outside a list")
    stack[-1].extend(items)


def _reduce(stack: list[Any]) -> None:
    function, arguments = _take(stack, 2)
    if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
        raise UnknownError("a call of something that is not a function")
    if function.name == REBUILD:
        storage, offset, shape, stride, _, _, *flags = arguments
        if flags and flags[0]:
            raise UnknownError("a conjugated or negated view")
        checked = TensorOutline(storage, offset, tuple(shape), tuple(stride))
        if not isinstance(storage, Storage):
            raise UnknownError("a tensor without numbers")
        stack.append(checked)
    elif function.name == PARAMETER:
        stack.append(arguments[0])
    elif function.name in MADE_EMPTY:
        stack.append({})
    else:
        raise UnknownError(f"a call of {shown(function.name)}")


def _persistent(stack: list[Any]) -> None:
    word, kind, key, _, elements = stack.pop()
    if (
        word != "storage"
        or not isinstance(kind, GlobalName)
        or not isinstance(key, str)
        or not isinstance(elements, int)
    ):
        raise UnknownError("a reference that is not a storage")
    kind_name = kind.name.removeprefix("torch.")
    stack.append(Storage(key, (DTYPES | OTHER_STORAGES)[kind_name], elements))


def _build(stack: list[Any]) -> None:
    """The state of an OrderedDict (its metadata) or of a Namespace: neither holds weights."""
    target, _ = _take(stack, 2)
    stack.append(target)


CONSTANTS: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: MARK,
}
ARGUMENTS = {
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINFLOAT",
    "BINBYTES",
    "SHORT_BINBYTES",
}
STEPS: dict[str, Callable[[list[Any]], None]] = {
    "TUPLE": lambda stack: stack.append(tuple(_since_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_take(stack, 3))),
    "SETITEM": lambda stack: _put_pairs(stack, _take(stack, 2)),
    "SETITEMS": lambda stack: _put_pairs(stack, _since_mark(stack)),
    "APPEND": lambda stack: _extend(stack, _take(stack, 1)),
    "APPENDS": lambda stack: _extend(stack, _since_mark(stack)),
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "BINPERSID": _persistent,
    "BUILD": _build,
}
