"""What the user calls a data set -> the source behind it."""

import glob
import os
import re
from itertools import product
from pathlib import Path

from vitlab.data.bundled import SETS, open_bundled
from vitlab.data.folders import TEST_FOLDERS, open_folder
from vitlab.data.idx import open_fashion_mnist
from vitlab.data.shards import ShardSource, open_shards
from vitlab.data.sources import Source, Split
from vitlab.errors import UserError, unknown_name

FULL = "fashion-mnist-full"
THREE_WAYS = (
    "a source is a data set's name ({names}), an image folder (train/CLASS/*.jpg and val/CLASS/*.jpg, "
    "or CLASS/*.jpg), or tar shards (path/train-{{000..010}}.tar, path/train-*.tar, or their folder)"
)
MAX_SHARDS = 1_000_000
RANGE = re.compile(r"(\d+)\.\.(\d+)")
BRACES = re.compile(r"\{([^{}]*)\}")


def names() -> list[str]:
    """The data sets that have a name, sorted."""
    return sorted([*SETS, FULL])


def open_source(source: str, split: Split) -> Source:
    """Opens one side of a data set.

    Args:
        source: a name, an image folder, or tar shards as a pattern or a folder.
        split: "train" or "test". Where the data has no split of its own, a fixed fifth of each class is the
            test side. A pattern of shards has its own where its file name says `train`: the test side is then
            the same name with `val`, `validation` or `test`, whatever the numbers.

    Raises:
        UserError: there is no such source, or it is refused (see the sources).
    """
    if source in SETS:
        return open_bundled(source, split)
    if source == FULL:
        return open_fashion_mnist(split)
    path = Path(source).expanduser()
    if source.startswith("pipe:"):
        raise UserError(f"{source}: commands are never run; {_listing()}")
    if path.name.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.zst")):
        raise UserError(f"{source}: compressed shards cannot be read at random; decompress them to .tar first")
    if path.suffix == ".tar":
        return _open_pattern(path, source, split)
    if path.is_dir():
        tars = sorted(path.glob("*.tar"))
        return _open_shard_folder(path, tars, split) if tars else open_folder(path, split)
    if path.exists():
        raise UserError(f"{source}: this is a file, not a data set; {_listing()}")
    if os.sep in source or source.startswith((".", "~")):
        raise UserError(f"{source}: there is no such folder; {_listing()}")
    raise unknown_name("data set", source, names(), listing=_listing())


def _listing() -> str:
    return THREE_WAYS.format(names=", ".join(names()))


def _open_shard_folder(folder: Path, tars: list[Path], split: Split) -> ShardSource:
    """A folder of shards: train-*.tar with its test side, or shards that are split together."""
    if any(path.name.startswith("train") for path in tars):
        return _open_pattern(folder / "train*.tar", str(folder), split)
    return open_shards(tars, str(folder), split=split)


def _open_pattern(pattern: Path, source: str, split: Split) -> ShardSource:
    train = open_shards_matching(pattern)
    if "train" not in pattern.name:
        return open_shards(train, source, split=split)
    opened = open_shards(train, f"{source} (train part)")
    if split == "train":
        return opened
    stem = pattern.name.partition("train")[0]
    for side in TEST_FOLDERS:
        paths = sorted(pattern.parent.glob(f"{glob.escape(stem)}{side}[-_.0-9]*tar"))
        if paths:
            return open_shards(paths, f"{source} ({side} part)", classes=opened.classes)
    raise UserError(
        f"{source}: there are no test shards; name them {stem}val-*.tar beside {pattern.name}, "
        "or give shards without `train` in their names to have them split"
    )


def open_shards_matching(pattern: Path) -> list[Path]:
    """The tar files that a pattern means: `{000..010}` and `{a,b}` are written out, `*` and `?` match.

    Raises:
        UserError: a written-out file is missing, or nothing matches.
    """
    paths: list[Path] = []
    for text in expand_braces(str(pattern)):
        if glob.has_magic(text):
            matching = sorted(glob.glob(text))  # noqa: PTH207 (the pattern may be absolute)
        else:
            matching = [text] if Path(text).is_file() else []
        if not matching:
            raise UserError(f"{text}: there is no such tar shard; {_listing()}")
        paths += map(Path, matching)
    return paths


def expand_braces(pattern: str) -> list[str]:
    """Writes out `{000..010}` (its first number's width is kept) and `{a,b}`.

    Raises:
        UserError: it stands for more than a million names.
    """
    parts = BRACES.split(pattern)
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_SHARDS:
        raise UserError(f"{pattern}: it stands for {count:,} shards; {MAX_SHARDS:,} are the most")
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inside: str) -> list[str]:
    numbers = RANGE.fullmatch(inside)
    if not numbers:
        return inside.split(",")
    first, last = int(numbers[1]), int(numbers[2])
    if last - first >= MAX_SHARDS:
        raise UserError(f"{{{inside}}}: it stands for more than {MAX_SHARDS:,} shards")
    return [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
