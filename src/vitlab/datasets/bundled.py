"""The small real data sets that come inside the package, so that everything can be tried offline.

Each is a folder of `bundled/` with its licence: per split one xz-compressed tar shard and its index. The PNGs inside
store their pixels uncompressed, because xz finds more across images than PNG does within one: 3.1 MB in all instead
of 3.6. A shard is unpacked once, into memory, when it is opened; from there on it is read as any other.
"""

import lzma
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from vitlab.data.sources import TrainOrTest
from vitlab.errors import UserError
from vitlab.shards.index import from_json
from vitlab.shards.source import Shard, ShardSource, shard_source

MAX_UNPACKED = 64 * 2**20


@dataclass(frozen=True)
class Bundled:
    """One bundled data set: its folder, and what it is in one line."""

    folder: str
    summary: str


SETS = {
    "fashion-mnist": Bundled("fashion-mnist", "6,000 + 1,000 photos of clothes, 28 x 28 grey, 10 classes (MIT)"),
    "digits": Bundled("digits", "1,297 + 500 handwritten digits, 8 x 8 grey, 10 classes (BSD)"),
}


def open_bundled(name: str, split: TrainOrTest) -> ShardSource:
    """One side of a bundled data set; see `SETS` for the names.

    Raises:
        UserError: the installed files are damaged.
    """
    folder = files("vitlab.datasets") / "bundled" / SETS[name].folder
    try:
        index = from_json((folder / f"{split}.index.json").read_bytes(), f"{name}'s {split} index")
        packed = (folder / f"{split}.tar.xz").read_bytes()
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(packed, MAX_UNPACKED)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{name}: the bundled files are damaged ({error}); install vitlab again") from error
    if len(unpacked) != index.shard_bytes:
        raise UserError(f"{name}: the bundled files are cut short; install vitlab again")
    return shard_source([Shard(Path(f"{name}-{split}.tar"), index, unpacked)], f"{name} ({split} part)")
