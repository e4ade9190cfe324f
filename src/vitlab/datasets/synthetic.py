"""Rendered and measured scenes in the layout in which they are handed out: Clevr, KITTI, dSprites, SmallNORB, SVHN."""

import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.arrays import ArraySource, array_source
from vitlab.data.decoding.pillow import describe_error
from vitlab.data.folders import FolderSource, Row, files_source
from vitlab.data.sources import Bad
from vitlab.datasets.listings import inside, number, read_json, read_rows, read_text
from vitlab.datasets.matfiles import read_mat
from vitlab.datasets.vtab_labels import clevr_count, clevr_distance, grouped, kitti_distance, smallnorb_azimuth
from vitlab.errors import UserError

DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_SIZES = (1, 3, 6, 40, 32, 32)  # colour, shape, scale, orientation, x, y: how many values each
ORIENTATION, POSITION_X = 3, 4
NORB_STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
NORB_TYPES = {0x1E3D4C54: "<i4", 0x1E3D4C55: "u1"}
ELEVATION, AZIMUTH = 1, 2  # columns of SmallNORB's info
KITTI_SEED, KITTI_PERCENT = 123, 10
MAX_ARRAY = 4 * 2**30


def _no_split(folder: Path, split: str) -> UserError:
    return UserError(f"{folder}: this data set has no {split} split")


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


# --------------------------------------------------------------------------------------------------------- Clevr


def open_clevr_count(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Clevr-Count from CLEVR_v1.0 (Johnson et al. 2017): images/SPLIT/, scenes/CLEVR_SPLIT_scenes.json.

    Raises:
        UserError: a file is missing or malformed.
    """
    return _open_clevr(folder, split, lambda depths: clevr_count(len(depths)), tuple(map(str, range(3, 11))), bad)


def open_clevr_distance(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Clevr-Dist; see `open_clevr_count`.

    Raises:
        UserError: a file is missing or malformed.
    """
    return _open_clevr(folder, split, clevr_distance, _numbers(6), bad)


def _open_clevr(
    folder: Path, split: str, label: Callable[[list[float]], int], classes: tuple[str, ...], bad: Bad
) -> FolderSource:
    sides = {"train": "train", "validation": "val"}
    if split not in sides:
        raise _no_split(folder, split)
    listing = folder / "scenes" / f"CLEVR_{sides[split]}_scenes.json"
    found = read_json(listing)
    images = folder / "images" / sides[split]
    rows: list[Row] = []
    try:
        for scene in found["scenes"]:
            depths = [float(each["pixel_coords"][2]) for each in scene["objects"]]
            rows.append((inside(images, str(scene["image_filename"]), listing), label(depths)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{listing}: scene {len(rows)} is malformed ({type(error).__name__}); get it again") from error
    return files_source(f"{folder} ({split} part)", folder, classes, _checked(rows, classes, listing), bad)


def _checked(rows: list[Row], classes: tuple[str, ...], listing: Path) -> list[Row]:
    wrong = next((row for row, (_, label) in enumerate(rows) if not 0 <= label < len(classes)), None)
    if wrong is not None:
        raise UserError(f"{listing}: scene {wrong} is none of the {len(classes)} classes; get it again")
    return rows


# --------------------------------------------------------------------------------------------------------- KITTI


def open_kitti(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """KITTI-Dist from the object data (Geiger et al. 2012): training/image_2/, training/label_2/, mapping/.

    The training images are divided by video, as TensorFlow Datasets does: a tenth of the videos (rounded down) for
    testing and as many for validation, drawn by numpy's frozen generator from seed 123. mapping/ holds the devkit's
    train_rand.txt and train_mapping.txt.

    Raises:
        UserError: a file is missing or malformed.
    """
    parts = _kitti_parts(folder / "mapping")
    if split not in parts:
        raise _no_split(folder, split)
    labels = folder / "training/label_2"
    rows = [
        (folder / "training/image_2" / f"{image:06d}.png", _kitti_label(labels / f"{image:06d}.txt"))
        for image in parts[split]
    ]
    return files_source(f"{folder} ({split} part)", folder, _numbers(4), rows, bad)


def _kitti_label(path: Path) -> int:
    try:
        return kitti_distance([(words[0], float(words[13])) for words in read_rows(path, 14)])  # type .. x y z rotation
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: an object has no distance that can be; get the data set again") from error


def _kitti_parts(mapping: Path) -> dict[str, list[int]]:
    """The image numbers of each split."""
    words = read_text(mapping / "train_rand.txt").replace(",", " ").split()
    order = [number(word, mapping / "train_rand.txt", place) for place, word in enumerate(words, 1)]
    lines = read_rows(mapping / "train_mapping.txt", 2)
    if not order or min(order) < 1 or max(order) > len(lines):
        raise UserError(f"{mapping}: train_rand.txt and train_mapping.txt do not belong together; get both again")
    videos: dict[str, list[int]] = {}
    for image, line in enumerate(order):
        videos.setdefault(lines[line - 1][1], []).append(image)
    count = max(1, KITTI_PERCENT * len(videos) // 100)
    if len(videos) < 2 * count + 1:
        raise UserError(f"{mapping}: {len(videos)} videos are too few to divide; get the data set again")
    # The old generator's stream is frozen by numpy for good, which is what makes this division repeatable.
    random = np.random.RandomState(KITTI_SEED)
    test = set(random.choice(sorted(videos), count, replace=False).tolist())
    validation = set(random.choice(sorted(videos.keys() - test), count, replace=False).tolist())
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for video, images in videos.items():
        parts["test" if video in test else "validation" if video in validation else "train"] += images
    return parts


# ------------------------------------------------------------------------------------------------------ dSprites


def open_dsprites_location(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """dSpr-Loc from dSprites' npz (Matthey et al. 2017): 16 groups of the horizontal position.

    All images are unpacked on opening and kept as bits: 360 MiB.

    Raises:
        UserError: the file is missing or malformed.
    """
    return _open_dsprites(folder, split, POSITION_X)


def open_dsprites_orientation(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """dSpr-Ori: 16 groups of the orientation; see `open_dsprites_location`.

    Raises:
        UserError: the file is missing or malformed.
    """
    return _open_dsprites(folder, split, ORIENTATION)


def _open_dsprites(folder: Path, split: str, attribute: int) -> ArraySource:
    if split != "train":
        raise _no_split(folder, split)
    path = folder / DSPRITES_FILE
    try:
        with zipfile.ZipFile(path) as archive:
            latents_N6 = _npy(archive, "latents_classes.npy", lambda rows: rows.astype(np.int64))
            bits_NV = _npy(archive, "imgs.npy", lambda rows: np.packbits(rows.reshape(len(rows), -1) != 0, axis=1))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: it cannot be read ({describe_error(error)}); get the data set again") from error
    if latents_N6.shape != (len(bits_NV), 6) or bits_NV.shape[1] != 64 * 64 // 8:
        raise UserError(f"{path}: its images and latents do not belong together; get the data set again")
    values = DSPRITES_SIZES[attribute]
    labels_N = latents_N6[:, attribute] * 16 // values
    assert int(labels_N[0]) == grouped(int(latents_N6[0, attribute]), values, 16)

    def pixels(index: int) -> NDArray[np.uint8]:
        return np.unpackbits(bits_NV[index]).reshape(64, 64) * np.uint8(255)

    return array_source(f"{folder} (train part)", split, _numbers(16), labels_N, 64 * 64, pixels)


def _npy(archive: zipfile.ZipFile, member: str, convert: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """An array of an npz, converted piece by piece as it is unpacked, so that it never lies in memory whole."""
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member} is of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        size = prod(shape[1:]) * dtype.itemsize
        if fortran or dtype.hasobject or not shape or not 0 < size * shape[0] <= MAX_ARRAY:
            raise ValueError(f"{member} is no plain array of a bearable size")
        step = max(1, 2**24 // size)
        pieces = [
            convert(_piece(file, min(step, shape[0] - row), shape[1:], dtype)) for row in range(0, shape[0], step)
        ]
    return np.concatenate(pieces)


def _piece(file: IO[bytes], rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = rows * prod(shape) * dtype.itemsize
    body = file.read(size)
    if len(body) != size:
        raise ValueError("the archive is cut short")
    return np.frombuffer(body, dtype).reshape(rows, *shape)


# ----------------------------------------------------------------------------------------------------- SmallNORB


def open_smallnorb_azimuth(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """sNORB-Azim from SmallNORB's binary files (LeCun et al. 2004); of each pair the first camera's image.

    Raises:
        UserError: a file is missing or malformed.
    """
    return _open_smallnorb(folder, split, AZIMUTH, 18, smallnorb_azimuth)


def open_smallnorb_elevation(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """sNORB-Elev; see `open_smallnorb_azimuth`.

    Raises:
        UserError: a file is missing or malformed.
    """
    return _open_smallnorb(folder, split, ELEVATION, 9, int)


def _open_smallnorb(folder: Path, split: str, column: int, classes: int, label: Callable[[int], int]) -> ArraySource:
    if split not in NORB_STEMS:
        raise _no_split(folder, split)
    images_N2HW = _norb(folder / f"{NORB_STEMS[split]}-dat.mat", 4)
    info_N4 = _norb(folder / f"{NORB_STEMS[split]}-info.mat", 2)
    if len(images_N2HW) != len(info_N4) or images_N2HW.shape[1] != 2 or info_N4.shape[1] != 4:
        raise UserError(f"{folder}: SmallNORB's {split} files do not belong together; get them again")
    labels_N = np.array([label(stored) for stored in info_N4[:, column].tolist()], np.int64)
    size = prod(images_N2HW.shape[2:])
    name = f"{folder} ({split} part)"
    return array_source(name, split, _numbers(classes), labels_N, size, lambda index: np.array(images_N2HW[index, 0]))


def _norb(path: Path, dimensions: int) -> NDArray[Any]:
    """An array in SmallNORB's format: a magic number, how many dimensions, their sizes (three at least), values."""
    try:
        with path.open("rb") as file:
            head = np.frombuffer(file.read(8), "<u4")
            if len(head) != 2 or int(head[0]) not in NORB_TYPES or int(head[1]) != dimensions:
                raise UserError(f"{path}: this is none of SmallNORB's files of {dimensions} dimensions; get it again")
            slots = max(3, dimensions)
            shape = np.frombuffer(file.read(4 * slots), "<u4").tolist()[:dimensions]
            dtype, start = np.dtype(NORB_TYPES[int(head[0])]), 8 + 4 * slots
            if len(shape) != dimensions or start + prod(shape) * dtype.itemsize != path.stat().st_size:
                raise UserError(f"{path}: its size does not fit its header; get it again")
    except OSError as error:
        raise UserError(f"{path}: it cannot be read ({error.strerror}); is the data set complete?") from error
    mapped: NDArray[Any] = np.memmap(path, dtype, "r", start, tuple(shape))
    return mapped


# ---------------------------------------------------------------------------------------------------------- SVHN


def open_svhn(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """SVHN's cropped digits (Netzer et al. 2011): train_32x32.mat, test_32x32.mat; the stored label 10 is the digit 0.

    Raises:
        UserError: a file is missing or malformed.
    """
    if split not in ("train", "test"):
        raise _no_split(folder, split)
    path = folder / f"{split}_32x32.mat"
    found = read_mat(path, ("X", "y"))
    images_HWCN, labels_N = found["X"], found["y"].ravel().astype(np.int64)
    if images_HWCN.dtype != np.uint8 or images_HWCN.shape != (32, 32, 3, len(labels_N)):
        raise UserError(f"{path}: its images and labels do not belong together; get it again")
    images_NHWC = np.ascontiguousarray(images_HWCN.astype(np.uint8, copy=False).transpose(3, 0, 1, 2))
    digits_N = np.where(labels_N == 10, 0, labels_N)
    name = f"{folder} ({split} part)"
    return array_source(name, split, _numbers(10), digits_N, 32 * 32 * 3, lambda index: images_NHWC[index])
