"""What the user writes for tar shards -> a source: a pattern, a folder of shards, or URLs of one."""

import glob
import re
from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from pathlib import Path

from vitlab.data.folders import TEST_FOLDERS
from vitlab.data.sources import Bad, TrainOrTest
from vitlab.errors import UserError
from vitlab.shards.indexing import index_remote, index_shard
from vitlab.shards.remote import find_file, find_matching, is_url
from vitlab.shards.source import Shard, ShardSource, shard_source

MAX_SHARDS = 1_000_000
RANGE = re.compile(r"(\d+)\.\.(\d+)")
BRACES = re.compile(r"\{([^{}]*)\}")
WAYS = "tar shards are path/train-{000..010}.tar, path/train-*.tar, their folder, or a URL of the same form"


Names = Callable[[str], list[str]]  # a path or URL, or a pattern of them -> the shards that it means


def open_tar_folder(folder: Path, tars: list[Path], split: TrainOrTest, bad: Bad = "refuse") -> ShardSource:
    """One side of a folder of shards: train-*.tar with its test side, or shards that are split as one."""
    if any(path.name.startswith("train") for path in tars):
        return open_tar_pattern(folder / "train*.tar", str(folder), split, bad)
    return open_shards(tars, str(folder), split=split, bad=bad)


def open_tar_pattern(pattern: Path, source: str, split: TrainOrTest, bad: Bad = "refuse") -> ShardSource:
    """One side of local shards.

    Args:
        pattern: of the training shards where its name says `train`; else of all.
        source: as the user wrote it.
        split: the wanted side.
        bad: whether incomplete samples and shards that are cut short are refused or left out.

    Raises:
        UserError: a shard is missing or refused, or there is no test side.
    """

    def matching(text: str) -> list[str]:
        return sorted(glob.glob(text))  # noqa: PTH207 (the pattern may be absolute)

    def existing(text: str) -> list[str]:
        return [text] if Path(text).is_file() else []

    return _open_side(str(pattern), source, split, bad, matching, existing)


def open_tar_url(url: str, split: TrainOrTest, bad: Bad = "refuse") -> ShardSource:
    """One side of shards behind URLs; see `open_tar_pattern`.

    Raises:
        UserError: see `open_tar_pattern`; it names no tar, or the storage cannot be reached.
    """
    if not url.endswith(".tar"):
        raise UserError(f"{url}: this URL names no tar shards; {WAYS}")
    return _open_side(url, url, split, bad, find_matching, lambda text: [find_file(text).url])


def open_shards(
    shards: Sequence[Path | str], name: str, *,
    classes: tuple[str, ...] | None = None, split: TrainOrTest | None = None, bad: Bad = "refuse",
) -> ShardSource:  # fmt: skip
    """A source from tar files, paths or URLs, indexing those that have no index yet; see `shard_source`.

    `bad` says whether a shard that is cut short and a sample that is incomplete are refused, or left out and listed
    in `ShardSource.skipped`.
    """
    skipped: list[str] = []
    opened = [_open_shard(shard, skipped if bad == "skip" else None) for shard in shards]
    return shard_source(opened, name, classes=classes, split=split, skipped=skipped)


def _open_shard(shard: Path | str, skipped: list[str] | None) -> Shard:
    if is_url(str(shard)):
        file = find_file(str(shard))
        return Shard(Path(file.url.rpartition("/")[2]), index_remote(file, skipped), remote=file)
    return Shard(Path(shard), index_shard(Path(shard), skipped))


def _open_side(
    pattern: str, source: str, split: TrainOrTest, bad: Bad, matching: Names, existing: Names
) -> ShardSource:
    train = find_shards(pattern, matching, existing)
    folder, slash, name = pattern.rpartition("/")
    if "train" not in name:
        return open_shards(train, source, split=split, bad=bad)
    train_side = open_shards(train, f"{source} (train split)", bad=bad)
    if split == "train":
        return train_side
    stem = name.partition("train")[0]
    for side in TEST_FOLDERS:
        names = matching(f"{glob.escape(folder)}{slash}{glob.escape(stem)}{side}[-_.0-9]*tar")
        if names:
            return open_shards(names, f"{source} ({side} split)", classes=train_side.classes, bad=bad)
    raise UserError(
        f"{source}: there are no test shards; name them {stem}val-*.tar beside {name}, "
        "or give shards without `train` in their names to have them split"
    )


def find_shards(pattern: str, matching: Names, existing: Names) -> list[str]:
    """The tar files that a pattern means: `{000..010}` and `{a,b}` are written out, `*` and `?` match.

    Args:
        pattern: a path or a URL.
        matching: lists what matches `*` and `?`.
        existing: gives a name back where there is such a file, else [].

    Raises:
        UserError: a written-out file is missing, or nothing matches.
    """
    names: list[str] = []
    for text in expand_braces(pattern):
        found = matching(text) if glob.has_magic(text) else existing(text)
        if not found:
            raise UserError(f"{text}: there is no such tar shard; {WAYS}")
        names += found
    return names


def expand_braces(pattern: str) -> list[str]:
    """Writes out `{000..010}` (its first number's width is kept) and `{a,b}`.

    Raises:
        UserError: it stands for more than a million names.
    """
    texts = BRACES.split(pattern)  # every second one stood between braces
    choices = [_choices(text) if number % 2 else [text] for number, text in enumerate(texts)]
    count = prod(map(len, choices))
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
