"""Every built-in recipe by name, and recipes read from TOML files."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitlab.errors import UserError, unknown_name
from vitlab.recipes import augreg, bit, plain, pretrain, transfer
from vitlab.recipes.entries import Entry
from vitlab.recipes.schema import Recipe, from_toml

LARGEST_FILE = 1_000_000


@dataclass(frozen=True)
class Family:
    """Recipes that belong together.

    Attributes:
        name: what a reader asks for.
        pattern: how its recipes' names are made; empty where each has its own.
        about: what they are, in a line.
        entries: makes them; its docstring says more.
    """

    name: str
    pattern: str
    about: str
    entries: Callable[[], tuple[Entry, ...]]

    def description(self) -> str:
        """The docstring of its function."""
        return inspect.getdoc(self.entries) or ""


def _starts() -> tuple[Entry, ...]:
    """Recipes that run on small machines, to begin with and to change."""
    return (*pretrain.starts(), *transfer.starts())


FAMILIES = (
    Family("starts", "", "small machines: to begin with, and to change", _starts),
    Family("table3", "table3/MODEL-DATA-EPOCHSep", "the paper's pretraining, every row of Table 3", pretrain.table3),
    Family("table4", "table4/DATA", "the paper's fine-tuning, every row of Table 4", transfer.table4),
    Family("vtab", "vtab/TASK", "the paper's fine-tuning on VTAB's 19 tasks", transfer.vtab_tasks),
    Family(
        "augreg", "augreg/DATA-AUGMENTATION", "AugReg's pretraining (arXiv 2106.10270), any --model", augreg.pretraining
    ),
    Family("augreg-to", "augreg/to-DATA-STEPS", "AugReg's fine-tuning", augreg.transfer_runs),
    Family("plain", "plain/vit-s16-EPOCHSep", "a better plain ViT-S/16 on ImageNet (arXiv 2205.01580)", plain.entries),
    Family("bit", "bit/s, bit/m, bit/l", "BiT's pretraining (arXiv 1912.11370), any --model", bit.upstream),
    Family("hyperrule", "bit/hyperrule-STEPS-PIXELS", "BiT-HyperRule: fine-tuning without a search", bit.hyperrules),
)


def entries() -> list[Entry]:
    """All built-in recipes with what is known about them."""
    return [entry for family in FAMILIES for entry in family.entries()]


def names() -> list[str]:
    """The names of the built-in recipes."""
    return [entry.name for entry in entries()]


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: there is none.
    """
    for found in FAMILIES:
        if found.name == name:
            return found
    families = [found.name for found in FAMILIES]
    raise unknown_name("family of recipes", name, families, listing=f"they are {', '.join(families)}")


def entry(name: str) -> Entry | None:
    """The built-in recipe of that name with what is known about it, where there is one."""
    return next((found for found in entries() if found.name == name), None)


def description(name: str) -> str:
    """What a built-in recipe is, how it is run, what it costs and what to expect."""
    found = entry(name)
    assert found is not None
    return found.description()


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A built-in recipe by its name, or the recipe in a TOML file.

    Args:
        name_or_file: such as "demo-upstream" or "mine.toml"; a `Path` is a file in any case.

    Raises:
        UserError: an unknown name (the nearest ones are given), or a file that cannot be read or is not a recipe.
    """
    if isinstance(name_or_file, str):
        found = entry(name_or_file)
        if found is not None:
            return found.recipe
    path = Path(name_or_file)
    if isinstance(name_or_file, Path) or path.suffix == ".toml" or path.is_file():
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
