"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009); the Python version is pickles, and never read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.arrays import ArraySource, array_source
from vitlab.data.sources import Bad
from vitlab.datasets.listings import read_text
from vitlab.errors import UserError

PIXELS = 3 * 32 * 32
FILES_10 = {"train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test": ("test_batch.bin",)}
FILES_100 = {"train": ("train.bin",), "test": ("test.bin",)}


def open_cifar10(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """CIFAR-10 from data_batch_1.bin .. data_batch_5.bin, test_batch.bin and batches.meta.txt.

    Raises:
        UserError: a file is missing or of a wrong size.
    """
    return _open(folder, "cifar10", split, FILES_10, "batches.meta.txt", label_bytes=1)


def open_cifar100(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """CIFAR-100 with its 100 fine labels, from train.bin, test.bin and fine_label_names.txt.

    Raises:
        UserError: a file is missing or of a wrong size.
    """
    return _open(folder, "cifar100", split, FILES_100, "fine_label_names.txt", label_bytes=2)


def _open(
    folder: Path, name: str, split: str, files: Mapping[str, tuple[str, ...]], names: str, label_bytes: int
) -> ArraySource:
    if split not in files:
        raise UserError(f"{folder}: {name} has no {split} split")
    classes = tuple(line.strip() for line in read_text(folder / names).splitlines() if line.strip())
    rows_NV = np.concatenate([_rows(folder / file, label_bytes + PIXELS) for file in files[split]])
    images_NHWC = np.ascontiguousarray(rows_NV[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    labels_N = rows_NV[:, label_bytes - 1].astype(np.int64)  # of CIFAR-100's two labels the second is the fine one
    return array_source(f"{folder} ({split} part)", split, classes, labels_N, PIXELS, lambda index: images_NHWC[index])


def _rows(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        values = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    if len(values) == 0 or len(values) % size:
        raise UserError(f"{path}: its {len(values):,} bytes are no whole number of images of {size:,}; get it again")
    return values.reshape(-1, size)
