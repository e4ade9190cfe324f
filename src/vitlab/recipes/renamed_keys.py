"""Keys of recipes of earlier versions: what they are called today."""

import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from vitlab.errors import UserError

RENAMED = {
    "scale.keep": "checkpoint.keep",
    "scale.validation": "validation.share",
    "scale.patience": "early_stopping.patience",
    "scale.lanes": "scale.thread_replicas",
}


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
