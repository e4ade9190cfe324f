"""Values that come in are checked: what pydantic finds wrong, in one line, and keys of earlier versions.

A recipe that an earlier version wrote is read: `RENAMED` says what its keys are called today.
"""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from vitlab.errors import UserError, unknown_name

Value = TypeVar("Value")

RENAMED = {
    "scale.keep": "checkpoint.keep",
    "scale.validation": "validation.share",
    "scale.patience": "early_stopping.patience",
    "scale.lanes": "scale.thread_replicas",
}


def one_line(error: ValidationError, what: str, known: Iterable[str]) -> UserError:
    """The first problem of a model's configuration as a one-line error.

    Args:
        error: what pydantic raised.
        what: the value that was being constructed, such as "ViTConfig".
        known: its field names, for hints on unknown ones.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = list(known)
        return unknown_name(f"option of {what}", where, names, listing=f"it takes {', '.join(names)}")
    if first["type"] in ("missing", "missing_argument"):
        return UserError(f"{what}: {where} is missing; it takes {', '.join(known)}")
    return UserError(f"{what}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}")


def one_line_errors(cls: type[Value]) -> type[Value]:
    """Let a pydantic dataclass that is constructed directly raise one-line UserErrors.

    Inside a larger pydantic value nothing changes: there the larger value reports.
    """
    made = cast(Callable[..., None], cls.__init__)

    @functools.wraps(made)
    def init(self: Value, *args: Any, **fields: Any) -> None:
        try:
            made(self, *args, **fields)
        except ValidationError as error:
            known = cast(dict[str, Any], vars(cls)["__dataclass_fields__"])
            raise one_line(error, cls.__name__, known) from None

    setattr(cls, "__init__", init)  # noqa: B010  (mypy forbids the plain assignment)
    return cls


def one_line_of_recipe(error: ValidationError, where: str, known: Iterable[str]) -> UserError:
    """The first problem of a recipe as a one-line error.

    Args:
        error: what pydantic raised.
        where: the recipe came from, such as "mine.toml".
        known: all keys, for hints on unknown ones.
    """
    first = error.errors()[0]
    path = ".".join(str(piece) for piece in first["loc"])
    if first["type"] == "extra_forbidden":
        listing = "`vitlab recipes show NAME` lists the keys of a recipe"
        message = unknown_name("key", path, known, listing=listing)
        return UserError(f"{where}: {message}")
    if isinstance(first.get("ctx", {}).get("error"), UserError):
        return UserError(f"{where}: {first['ctx']['error']}")  # it names its key by itself
    reason = first["msg"].removeprefix("Value error, ")
    given = f" (given: {first['input']!r})"[:200] if path else ""
    return UserError(f"{where}: {path or 'recipe'}: {reason}{given}")


def renamed_values(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Nested values with every old key moved to its new place, and the old keys that there were, with the new ones.

    Raises:
        UserError: an old key and the one that replaces it are both given.
    """
    moved = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    renamed = {}
    for old, new in RENAMED.items():
        (section, key), (new_section, new_key) = old.split("."), new.split(".")
        if not isinstance(moved.get(section), dict) or key not in moved[section]:
            continue
        target = moved.setdefault(new_section, {})
        if not isinstance(target, dict):
            continue  # validation says that it must be a section
        if new_key in target:
            raise _given_twice(old, where)
        target[new_key] = moved[section].pop(key)
        renamed[old] = new
    return moved, renamed


def renamed_assignments(assignments: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """The same for `key.path=value` changes.

    Raises:
        UserError: an old key and the one that replaces it are both given.
    """
    pairs = [(path.strip(), equals + text) for path, equals, text in (given.partition("=") for given in assignments)]
    given = {path for path, _ in pairs}
    renamed = {old: new for old, new in RENAMED.items() if old in given}
    for old, new in renamed.items():
        if new in given:
            raise _given_twice(old, "--set")
    return [renamed.get(path, path) + rest for path, rest in pairs], renamed


def print_renamed(renamed: Mapping[str, str], where: str) -> None:
    """A line on stderr for every old key; of several processes that torchrun started the first one prints."""
    if os.environ.get("RANK", "0") == "0":
        for old, new in renamed.items():
            print(f"{where}: {old} is now called {new}", file=sys.stderr)


def _given_twice(old: str, where: str) -> UserError:
    return UserError(f"{where}: {old} is now called {RENAMED[old]}, and both are given: keep {RENAMED[old]} only")
