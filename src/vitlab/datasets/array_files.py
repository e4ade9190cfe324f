"""Data sets whose images lie as arrays in a few binary files: Fashion-MNIST (IDX), CIFAR, SVHN, SmallNORB.

Of CIFAR the binary version is read (Krizhevsky 2009); the Python version consists of pickles, and is never read. Each
reader takes the folder and an official split. It raises a UserError where there is no such split, or a file is missing,
malformed or of a wrong size.
"""

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.arrays import ArraySource, array_source
from vitlab.data.decoding import describe_error
from vitlab.data.sources import Bad, TrainOrTest
from vitlab.datasets.annotation_files import no_split, numbered, read_mat, read_text
from vitlab.errors import UserError

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FASHION_STEMS = {"train": "train", "test": "t10k"}
MAX_VALUES = 2**30
CIFAR_VALUES = 3 * 32 * 32
FILES_10 = {
    "train": ("data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"),
    "test": ("test_batch.bin",),
}
FILES_100 = {"train": ("train.bin",), "test": ("test.bin",)}
NORB_STEMS = {"train": "smallnorb-5x46789x9x18x6x2x96x96-training", "test": "smallnorb-5x01235x9x18x6x2x96x96-testing"}
NORB_TYPES = {0x1E3D4C54: "<i4", 0x1E3D4C55: "u1"}
ELEVATION, AZIMUTH = 1, 2  # columns of SmallNORB's info


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
            size = prod(shape)
            if size > MAX_VALUES:
                raise UserError(f"{path}: {size:,} values are more than the {MAX_VALUES:,} that are read")
            body = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{path}: it cannot be read ({describe_error(error)}); "
            f"install Debian's package {FASHION_PACKAGE} again (apt install --reinstall {FASHION_PACKAGE})"
        ) from error
    if len(body) != size:
        raise UserError(f"{path}: it holds another number of values than the {size:,} of its header")
    return np.frombuffer(body, np.uint8).reshape(shape)


def open_fashion_mnist(split: TrainOrTest, folder: Path = FASHION_FOLDER) -> ArraySource:
    """All of Fashion-MNIST: 60,000 training or 10,000 test images of 28 x 28 grey pixels.

    Raises:
        UserError: Debian's package is not installed, or its files are damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"fashion-mnist-full: {folder} is missing; install Debian's package {FASHION_PACKAGE} "
            f"(apt install {FASHION_PACKAGE}), or use the bundled sample fashion-mnist"
        )
    images_NHW = read_idx(folder / f"{FASHION_STEMS[split]}-images-idx3-ubyte.gz", 3)
    labels_N = read_idx(folder / f"{FASHION_STEMS[split]}-labels-idx1-ubyte.gz", 1)
    if len(images_NHW) != len(labels_N) or (labels_N >= len(FASHION_CLASSES)).any():
        raise UserError(f"{folder}: the {split} labels do not match its images; install {FASHION_PACKAGE} again")
    return array_source(
        f"fashion-mnist-full ({split} split)",
        "",
        FASHION_CLASSES,
        labels_N.astype(np.int64),
        images_NHW.shape[1] * images_NHW.shape[2],
        lambda index: images_NHW[index],
    )


def open_cifar10(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """CIFAR-10 from data_batch_1.bin .. data_batch_5.bin, test_batch.bin and batches.meta.txt."""
    return _open_cifar(folder, "cifar10", split, FILES_10, "batches.meta.txt", label_bytes=1)


def open_cifar100(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """CIFAR-100 with its 100 fine labels, from train.bin, test.bin and fine_label_names.txt."""
    return _open_cifar(folder, "cifar100", split, FILES_100, "fine_label_names.txt", label_bytes=2)


def _open_cifar(
    folder: Path, name: str, split: str, files: Mapping[str, tuple[str, ...]], names: str, label_bytes: int
) -> ArraySource:
    if split not in files:
        raise UserError(f"{folder}: {name} has no {split} split")
    classes = tuple(line.strip() for line in read_text(folder / names).splitlines() if line.strip())
    rows_NV = np.concatenate([_cifar_rows(folder / file, label_bytes + CIFAR_VALUES) for file in files[split]])
    images_NHWC = np.ascontiguousarray(rows_NV[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    labels_N = rows_NV[:, label_bytes - 1].astype(np.int64)  # of CIFAR-100's two labels the second is the fine one
    return array_source(
        f"{folder} ({split} split)", f"{split}/", classes, labels_N, CIFAR_VALUES, lambda index: images_NHWC[index]
    )


def _cifar_rows(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        values = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    if len(values) == 0 or len(values) % size:
        raise UserError(
            f"{path}: its {len(values):,} bytes are not a multiple of the {size:,} of an image; download it again"
        )
    return values.reshape(-1, size)


def open_svhn(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """SVHN's cropped digits (Netzer et al. 2011): train_32x32.mat, test_32x32.mat; the stored label 10 is digit 0."""
    if split not in ("train", "test"):
        raise no_split(folder, split)
    path = folder / f"{split}_32x32.mat"
    found = read_mat(path, ("X", "y"))
    images_HWCN, labels_N = found["X"], found["y"].ravel().astype(np.int64)
    if images_HWCN.dtype != np.uint8 or images_HWCN.shape != (32, 32, 3, len(labels_N)):
        raise UserError(f"{path}: its images and labels do not match; download it again")
    images_NHWC = np.ascontiguousarray(images_HWCN.astype(np.uint8, copy=False).transpose(3, 0, 1, 2))
    digits_N = np.where(labels_N == 10, 0, labels_N)
    name = f"{folder} ({split} split)"
    return array_source(name, f"{split}/", numbered(10), digits_N, 32 * 32 * 3, lambda index: images_NHWC[index])


def open_smallnorb_azimuth(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """sNORB-Azim from SmallNORB's binary files (LeCun et al. 2004); of each pair the first camera's image."""
    return _open_smallnorb(folder, split, AZIMUTH, 18, smallnorb_azimuth)


def open_smallnorb_elevation(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """sNORB-Elev; see `open_smallnorb_azimuth`."""
    return _open_smallnorb(folder, split, ELEVATION, 9, int)


def _open_smallnorb(folder: Path, split: str, column: int, classes: int, label: Callable[[int], int]) -> ArraySource:
    if split not in NORB_STEMS:
        raise no_split(folder, split)
    images_N2HW = _norb(folder / f"{NORB_STEMS[split]}-dat.mat", 4)
    info_N4 = _norb(folder / f"{NORB_STEMS[split]}-info.mat", 2)
    if len(images_N2HW) != len(info_N4) or images_N2HW.shape[1] != 2 or info_N4.shape[1] != 4:
        raise UserError(f"{folder}: SmallNORB's {split} files do not match; download them again")
    labels_N = np.array([label(stored) for stored in info_N4[:, column].tolist()], np.int64)
    size = prod(images_N2HW.shape[2:])
    name = f"{folder} ({split} split)"
    return array_source(
        name, f"{split}/", numbered(classes), labels_N, size, lambda index: np.array(images_N2HW[index, 0])
    )


def _norb(path: Path, dimensions: int) -> NDArray[Any]:
    """An array in SmallNORB's format: a magic number, how many dimensions, their sizes (three at least), values."""
    try:
        with path.open("rb") as file:
            head = np.frombuffer(file.read(8), "<u4")
            if len(head) != 2 or int(head[0]) not in NORB_TYPES or int(head[1]) != dimensions:
                raise UserError(
                    f"{path}: this is not one of SmallNORB's files of {dimensions} dimensions; download it again"
                )
            slots = max(3, dimensions)
            shape = np.frombuffer(file.read(4 * slots), "<u4").tolist()[:dimensions]
            dtype, start = np.dtype(NORB_TYPES[int(head[0])]), 8 + 4 * slots
            if len(shape) != dimensions or start + prod(shape) * dtype.itemsize != path.stat().st_size:
                raise UserError(f"{path}: its size does not fit its header; download it again")
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    mapped: NDArray[Any] = np.memmap(path, dtype, "r", start, tuple(shape))
    return mapped


def smallnorb_azimuth(stored: int) -> int:
    """sNORB-Azim: stored as 0, 2, .. 34 (twenties of degrees), 18 classes."""
    return stored // 2
