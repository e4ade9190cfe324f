"""What the user calls a data set -> the source behind it."""

import os
from pathlib import Path

from vitlab.data.folders import open_folder
from vitlab.data.sources import Bad, Source, Split, TrainOrTest
from vitlab.datasets import named
from vitlab.datasets.bundled import SETS, open_bundled
from vitlab.datasets.hub import find_parquet, hub_splits, is_hub_id, open_table, parquet_splits, split_columns
from vitlab.datasets.idx import open_fashion_mnist
from vitlab.datasets.manifests import pin, read_manifest
from vitlab.datasets.opening import development, open_named, split_path
from vitlab.errors import UserError, unknown_name
from vitlab.shards.opening import open_tar_folder, open_tar_pattern, open_tar_url
from vitlab.shards.remote import is_url

FULL = "fashion-mnist-full"
DEV_SHARE = 0.1  # of train, where the data set's own is not known
WAYS = (
    "a source is a data set's name (`vitlab data` lists them), an image folder (train/CLASS/*.jpg and val/CLASS/*.jpg, "
    "or CLASS/*.jpg), tar shards (path/train-{000..010}.tar, path/train-*.tar, their folder, or a URL), "
    "Parquet files or their folder, or hf://owner/name"
)


def known_as(source: str) -> str:
    """What reports call the data of `source`: the data set's name, or the last part of a path or an address."""
    name, _ = split_path(source)
    if name in names():
        return name
    address = name.partition("?")[0].rstrip("/")
    last = address.rpartition("/")[2] if "://" in address else Path(address).expanduser().resolve().name
    return last or "images"


def names() -> list[str]:
    """The data sets that have a name, sorted."""
    return sorted([*SETS, FULL, *named.names()])


def describe_names() -> list[tuple[str, str, int, str]]:
    """(name, what it is, number of classes, what it needs) of every data set that has a name."""
    bundled = [(name, found.summary, 10, "nothing: it comes with vitlab") for name, found in SETS.items()]
    full = (FULL, "60,000 + 10,000 photos of clothes", 10, "Debian's package dataset-fashion-mnist")
    return [*bundled, full, *map(named.describe, named.names())]


def open_source(source: str, part: Split, *, bad: Bad = "refuse", manifest: Path | None = None) -> Source:
    """Opens one part of a data set.

    Args:
        source: a name; NAME=PATH, a named data set in a folder; an image folder; tar shards as a pattern, a folder or
            a URL; Parquet files as one file or their folder; hf://owner/name or hf://owner/name@config. The
            last two take ?image=COLUMN&label=COLUMN behind them.
        part: "train" or "test"; or "dev-train" or "dev", a fixed division of train for choosing hyper-parameters.
            Where the data has no split of its own, a fixed fifth of each class is the test side. A pattern of
            shards has its own where its file name says `train`: the test side is then the same name with `val`,
            `validation` or `test`, whatever the numbers.
        bad: "refuse" refuses a data set with an empty or unreadable file, an incomplete sample, or a shard that is
            cut short; "skip" leaves these out and lists them in `Source.skipped`.
        manifest: says which samples of the part are taken, in which order (see `manifests`).

    Raises:
        UserError: there is no such source, or it is refused (see the sources).
    """
    if not source.strip():
        raise UserError(f"the data has no name; {WAYS}")
    opened = _open_part(source, part, bad)
    return opened if manifest is None else pin(read_manifest(manifest), [opened], f"{opened.name}, {manifest.name}")


def _open_part(source: str, part: Split, bad: Bad) -> Source:
    name, folder = split_path(source)
    if name in named.names():
        return open_named(name, folder, part, bad)
    if part == "train" or part == "test":
        return _open_side(source, part, bad)
    return development(_open_side(source, "train", bad), source, part, DEV_SHARE)


def _open_side(source: str, split: TrainOrTest, bad: Bad) -> Source:
    if source in SETS:
        return open_bundled(source, split)
    if source == FULL:
        return open_fashion_mnist(split)
    address, columns = split_columns(source)
    if is_hub_id(address):
        return open_table(hub_splits(address), address, columns, split)
    if source.startswith("pipe:"):
        raise UserError(f"{source}: commands are never run; {WAYS}")
    if source.endswith((".tar.gz", ".tgz", ".tar.xz", ".tar.zst")):
        raise UserError(f"{source}: compressed shards cannot be read at random; decompress them to .tar first")
    if is_url(source):
        return open_tar_url(source, split, bad)
    path = Path(address).expanduser()
    if path.suffix == ".tar":
        return open_tar_pattern(path, source, split, bad)
    tables = find_parquet(path)
    if tables:
        return open_table(parquet_splits(tables, address), address, columns, split)
    return _open_path(path, source, split, bad)


def _open_path(path: Path, source: str, split: TrainOrTest, bad: Bad) -> Source:
    if path.is_dir():
        tars = sorted(path.glob("*.tar"))
        if not tars and (path / f"{path.name}.py").is_file():
            raise UserError(f"{source}: it is a script, and code of a data set is never run; convert it to Parquet")
        return open_tar_folder(path, tars, split, bad) if tars else open_folder(path, split, bad)
    if path.exists():
        raise UserError(f"{source}: this is a file, not a data set; {WAYS}")
    if source.startswith((".", "~")) or (os.sep in source and not source.startswith("vtab/")):
        raise UserError(f"{source}: there is no such folder; {WAYS}")
    raise unknown_name("data set", source, names(), listing=WAYS)
