"""Every built-in recipe by name, and recipes read from TOML files."""

from collections.abc import Callable
from pathlib import Path

from vitlab.errors import UserError, unknown_name
from vitlab.recipes import pretrain, transfer
from vitlab.recipes.schema import Recipe, from_toml

LARGEST_FILE = 1_000_000

_FUNCTIONS: tuple[Callable[[], Recipe], ...] = (
    pretrain.demo_upstream,
    pretrain.fashion_mnist,
    pretrain.scratch,
    transfer.demo_downstream,
    transfer.finetune,
)


def names() -> list[str]:
    """The names of the built-in recipes."""
    return [function().name for function in _FUNCTIONS]


def description(name: str) -> str:
    """What a built-in recipe is for: the docstring of its function."""
    return next(function.__doc__ or "" for function in _FUNCTIONS if function().name == name)


def find(name_or_file: str) -> Recipe:
    """The built-in recipe of that name, or the recipe in that TOML file."""
    for function in _FUNCTIONS:
        if function().name == name_or_file:
            return function()
    path = Path(name_or_file)
    if path.suffix == ".toml" or path.is_file():
        return _read(path)
    raise unknown_name("recipe", name_or_file, names(), listing="`vitlab recipes` lists them; a TOML file works too")


def _read(path: Path) -> Recipe:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise UserError(f"recipe {path} has {size:,} bytes; a recipe has at most {LARGEST_FILE:,}")
        return from_toml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"recipe {path} is not UTF-8 text") from None
