"""Fashion-MNIST as Debian packages it: gzip'd IDX files (Xiao et al. 2017, arXiv 1708.07747)."""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.decoding.pillow import describe_error
from vitlab.data.decoding.ppm import as_rgb, write_ppm
from vitlab.data.sources import NotInShards, Sample, TrainOrTest, fingerprint
from vitlab.errors import UserError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
PACKAGE = "dataset-fashion-mnist"
CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
STEMS = {"train": "train", "test": "t10k"}
MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class IdxSource(NotInShards):
    """Grey images held in memory as one array; see `sources.Source`."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    images_NHW: NDArray[np.uint8]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images_NHW)

    def key(self, index: int) -> str:
        """The image's number; see `sources.Source.key`."""
        return str(index)

    def read(self, index: int) -> Sample:
        """The image at `index` as a binary PPM; see `sources.Source.read`."""
        return Sample(
            write_ppm(as_rgb(self.images_NHW[index])), int(self.labels_N[index]), f"{self.name} image {index}"
        )


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in a gzip'd IDX file of bytes.

    Args:
        path: the `.gz` file.
        dimensions: how many it must have.

    Raises:
        UserError: it is missing, damaged, of another kind, or larger than 1 GiB.
    """
    try:
        with gzip.open(path, "rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) != 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise UserError(f"{path}: this is not an IDX file of bytes in {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = 1
            for length in shape:
                size *= length
            if size > MAX_BYTES:
                raise UserError(f"{path}: {size:,} values are more than the {MAX_BYTES:,} that are read")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: it cannot be read ({describe_error(error)}); "
            f"install Debian's package {PACKAGE} again (apt install --reinstall {PACKAGE})"
        ) from error
    if len(body) != size:
        raise UserError(f"{path}: it holds another number of values than the {size:,} of its header")
    return np.frombuffer(body, np.uint8).reshape(shape)


def open_fashion_mnist(split: TrainOrTest, folder: Path = FOLDER) -> IdxSource:
    """All of Fashion-MNIST: 60,000 training or 10,000 test images of 28 x 28 grey pixels.

    Raises:
        UserError: Debian's package is not installed, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"fashion-mnist-full: {folder} is missing; install Debian's package {PACKAGE} "
            f"(apt install {PACKAGE}), or use the bundled sample fashion-mnist"
        )
    images_NHW = read_idx(folder / f"{STEMS[split]}-images-idx3-ubyte.gz", 3)
    labels_N = read_idx(folder / f"{STEMS[split]}-labels-idx1-ubyte.gz", 1)
    if len(images_NHW) != len(labels_N) or (labels_N >= len(CLASSES)).any():
        raise UserError(f"{folder}: the {split} labels do not belong to its images; install {PACKAGE} again")
    size = images_NHW.shape[1] * images_NHW.shape[2]
    return IdxSource(
        name=f"fashion-mnist-full ({split} part)",
        classes=CLASSES,
        labels_N=labels_N.astype(np.int64),
        fingerprint=fingerprint(CLASSES, ((str(i), size, int(label)) for i, label in enumerate(labels_N))),
        images_NHW=images_NHW,
    )
