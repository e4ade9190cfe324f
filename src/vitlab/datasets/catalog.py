"""What the user calls a data set -> the source behind it.

The bundled data sets are small real ones that come inside the package, so that everything can be tried offline. Each
is a folder of `bundled/` with its licence: per split one xz-compressed tar shard and its index. The PNGs inside store
their pixels uncompressed, because xz finds more across images than PNG does within one: 3.1 MB in all instead of 3.6.
A shard is unpacked once, into memory, when it is opened; from then on it is read as any other.
"""

import lzma
import os
from importlib.resources import files
from pathlib import Path

from vitlab.data.folders import open_folder
from vitlab.data.sources import Bad, Source, Split, TrainOrTest
from vitlab.datasets import named
from vitlab.datasets.array_files import open_fashion_mnist
from vitlab.datasets.hub import find_parquet, hub_splits, is_hub_id, open_table, parquet_splits, split_columns
from vitlab.datasets.manifests import pin, read_manifest
from vitlab.datasets.official import development, open_named
from vitlab.errors import UserError, unknown_name
from vitlab.shards.opening import open_tar_folder, open_tar_pattern, open_tar_url
from vitlab.shards.remote import is_url
from vitlab.shards.source import Shard, ShardSource, from_json, shard_source

BUNDLED = {
    "fashion-mnist": "6,000 + 1,000 photos of clothes, 28 x 28 grey, 10 classes (MIT)",
    "digits": "1,297 + 500 handwritten digits, 8 x 8 grey, 10 classes (BSD)",
}
MAX_UNPACKED = 64 * 2**20
VARIABLE = "VITLAB_DATA"
FULL = "fashion-mnist-full"
DEV_SHARE = 0.1  # of train, where the data set's own is not known
WAYS = (
    "a source is a data set's name (`vitlab data` lists them), an image folder (train/CLASS/*.jpg and val/CLASS/*.jpg, "
    "or CLASS/*.jpg), tar shards (path/train-{000..010}.tar, path/train-*.tar, their folder, or a URL), "
    "Parquet files or their folder, or hf://owner/name"
)


def split_path(source: str) -> tuple[str, Path | None]:
    """The catalog name and the folder in NAME=PATH; the folder of a bare name is $VITLAB_DATA/NAME, if it is there."""
    name, equals, path = source.partition("=")
    if equals and name in named.names():
        return name, Path(path).expanduser()
    base = os.environ.get(VARIABLE)
    folder = Path(base).expanduser() / source if base else None
    return source, folder if folder is not None and folder.is_dir() else None


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
    return sorted([*BUNDLED, FULL, *named.names()])


def describe_names() -> list[tuple[str, str, int, str]]:
    """(name, what it is, number of classes, what it needs) of every data set that has a name."""
    bundled = [(name, summary, 10, "nothing: it comes with vitlab") for name, summary in BUNDLED.items()]
    full = (FULL, "60,000 + 10,000 photos of clothes", 10, "Debian's package dataset-fashion-mnist")
    return [*bundled, full, *map(named.describe, named.names())]


def open_source(source: str, split: Split, *, bad: Bad = "refuse", manifest: Path | None = None) -> Source:
    """Opens one split of a data set.

    Args:
        source: a name; NAME=PATH, a named data set in a folder; an image folder; tar shards as a pattern, a folder or
            a URL; Parquet files as one file or their folder; hf://owner/name or hf://owner/name@config. The
            last two take ?image=COLUMN&label=COLUMN behind them.
        split: "train" or "test"; or "dev-train" or "dev", a fixed division of train for choosing hyper-parameters.
            Where the data has no split of its own, a fixed fifth of each class is the test side. A pattern of
            shards has its own where its file name says `train`: the test side is then the same name with `val`,
            `validation` or `test`, whatever the numbers.
        bad: "refuse" refuses a data set with an empty or unreadable file, an incomplete sample, or a shard that is
            cut short; "skip" leaves these out and lists them in `Source.skipped`.
        manifest: says which samples of the split are taken, in which order (see `manifests`).

    Raises:
        UserError: there is no such source, or it is refused (see the sources).
    """
    if not source.strip():
        raise UserError(f"the data has no name; {WAYS}")
    opened = _open_split(source, split, bad)
    return opened if manifest is None else pin(read_manifest(manifest), [opened], f"{opened.name}, {manifest.name}")


def _open_split(source: str, split: Split, bad: Bad) -> Source:
    if source not in BUNDLED:
        name, folder = split_path(source)
        if name in named.names():
            return open_named(name, folder, split, bad)
    if split == "train" or split == "test":
        return _open_side(source, split, bad)
    return development(_open_side(source, "train", bad), source, split, DEV_SHARE)


def _open_side(source: str, split: TrainOrTest, bad: Bad) -> Source:
    if source in BUNDLED:
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


def open_bundled(name: str, split: TrainOrTest) -> ShardSource:
    """One side of a bundled data set; see `BUNDLED` for the names.

    Raises:
        UserError: the installed files are damaged.
    """
    folder = files("vitlab.datasets") / "bundled" / name
    try:
        index = from_json((folder / f"{split}.index.json").read_bytes(), f"{name}'s {split} index")
        packed = (folder / f"{split}.tar.xz").read_bytes()
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed, MAX_UNPACKED)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{name}: the bundled files are damaged ({error}); install vitlab again") from error
    if len(unpacked) != index.shard_bytes:
        raise UserError(f"{name}: the bundled files are cut short; install vitlab again")
    return shard_source([Shard(Path(f"{name}-{split}.tar"), index, unpacked)], f"{name} ({split} split)")
