"""Makes src/vitlab/datasets/bundled/ again: `python tools/make_bundled.py [FOLDER]`.

Needs Debian's package dataset-fashion-mnist and scikit-learn. Nothing is drawn and no time is written, so
running it again gives the same bytes (xz's may differ under another version of liblzma; what they unpack to
does not).
"""

import lzma
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from vitlab.data.sources import Sample, TrainOrTest
from vitlab.datasets import array_files
from vitlab.files import write_bytes, write_text
from vitlab.shards.packing import pack_bytes
from vitlab.shards.source import to_json

BUNDLED = Path(__file__).resolve().parent.parent / "src/vitlab/datasets/bundled"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
FASHION_PER_CLASS: dict[TrainOrTest, int] = {"train": 600, "test": 100}
DIGITS_TEST = 500
# The dictionary holds a whole shard; the preset's own 64 MiB would be allocated on unpacking, too.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 2**24}]


def grey_png(image_HW: NDArray[np.uint8]) -> bytes:
    """An uncompressed 8-bit grey PNG file: the same bytes on every machine, and nothing to inflate on reading.

    Args:
        image_HW: uint8 grey values, height and width >= 1.
    """
    height, width = image_HW.shape
    lines = np.zeros((height, 1 + width), np.uint8)  # each line starts with its filter's number; 0 is "none"
    lines[:, 1:] = image_HW
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 0)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def write(
    folder: Path, split: TrainOrTest, images_NHW: NDArray[np.uint8], labels: Sequence[int], classes: Sequence[str]
) -> None:
    """Writes one split: SPLIT.tar.xz and SPLIT.index.json."""
    samples = [
        (f"{number:06d}", Sample(grey_png(image_HW), int(label), f"{split} image {number}"))
        for number, (image_HW, label) in enumerate(zip(images_NHW, labels, strict=True))
    ]
    content, index = pack_bytes(samples, tuple(classes))
    write_bytes(folder / f"{split}.tar.xz", lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=FILTERS))
    write_text(folder / f"{split}.index.json", to_json(index))


def make_fashion_mnist(folder: Path) -> None:
    """The first images of each class, in the order of the whole data set."""
    splits: tuple[TrainOrTest, ...] = ("train", "test")
    for split in splits:
        source = array_files.open_fashion_mnist(split)
        count = FASHION_PER_CLASS[split]
        firsts = [np.flatnonzero(source.labels_N == label)[:count] for label in range(len(source.classes))]
        kept = np.sort(np.concatenate(firsts))
        images_NHW = np.stack([source.pixels(index) for index in kept.tolist()])
        write(folder, split, images_NHW, source.labels_N[kept].tolist(), source.classes)


def make_digits(folder: Path) -> None:
    """Scikit-learn's digits, 0 .. 16 scaled to 0 .. 255; of each class, the last images are the test side."""
    digits = load_digits()
    images_NHW = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    labels_N = digits.target.astype(np.int64)
    counts = np.bincount(labels_N)
    shares = counts * DIGITS_TEST / len(labels_N)
    tests = np.floor(shares).astype(int)
    tests[np.argsort(tests - shares, kind="stable")[: DIGITS_TEST - tests.sum()]] += 1  # largest remainders
    in_test = np.zeros(len(labels_N), bool)
    for label, test in enumerate(tests):
        in_test[np.flatnonzero(labels_N == label)[-test:]] = True
    classes = [str(label) for label in range(10)]
    write(folder, "train", images_NHW[~in_test], labels_N[~in_test].tolist(), classes)
    write(folder, "test", images_NHW[in_test], labels_N[in_test].tolist(), classes)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED
    make_fashion_mnist(target / "fashion-mnist")
    make_digits(target / "digits")
    for path in sorted(target.rglob("*.*")):
        print(f"{path.stat().st_size:>10,}  {path.relative_to(target)}")
