"""Rendered and measured scenes in the layout in which they are published: Clevr, KITTI, dSprites.

Their labels follow VTAB's rules, as functions of each data set's own annotations (Zhai et al. 2019; values of its
public code). Each reader takes the folder and an official split. It raises a UserError where there is no such split, or
a file is missing or malformed.
"""

import zipfile
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.arrays import ArraySource, array_source
from vitlab.data.decoding import describe_error
from vitlab.data.folders import FolderSource, LabelledFile, files_source
from vitlab.data.sources import Bad
from vitlab.datasets.annotation_files import inside, no_split, number, numbered, read_json, read_rows, read_text
from vitlab.errors import UserError

DSPRITES_FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
DSPRITES_SIZES = (1, 3, 6, 40, 32, 32)  # colour, shape, scale, orientation, x, y: how many values each
ORIENTATION, POSITION_X = 3, 4
KITTI_SEED, KITTI_PERCENT = 123, 10
MAX_ARRAY = 4 * 2**30
CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0  # metres: beyond the last bin's start, so "no vehicle" is the last class
VEHICLES = ("Car", "Van", "Truck")


def open_clevr_count(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Clevr-Count from CLEVR_v1.0 (Johnson et al. 2017): images/SPLIT/, scenes/CLEVR_SPLIT_scenes.json."""
    return _open_clevr(folder, split, lambda depths: clevr_count(len(depths)), tuple(map(str, range(3, 11))), bad)


def open_clevr_distance(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Clevr-Dist; see `open_clevr_count`."""
    return _open_clevr(folder, split, clevr_distance, numbered(6), bad)


def _open_clevr(
    folder: Path, split: str, label: Callable[[list[float]], int], classes: tuple[str, ...], bad: Bad
) -> FolderSource:
    sides = {"train": "train", "validation": "val"}
    if split not in sides:
        raise no_split(folder, split)
    listing = folder / "scenes" / f"CLEVR_{sides[split]}_scenes.json"
    found = read_json(listing)
    images = folder / "images" / sides[split]
    rows: list[LabelledFile] = []
    try:
        for scene in found["scenes"]:
            depths = [float(each["pixel_coords"][2]) for each in scene["objects"]]
            rows.append((inside(images, str(scene["image_filename"]), listing), label(depths)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(
            f"{listing}: scene {len(rows)} is malformed ({type(error).__name__}); download it again"
        ) from error
    return files_source(f"{folder} ({split} split)", folder, classes, _checked(rows, classes, listing), bad)


def _checked(rows: list[LabelledFile], classes: tuple[str, ...], listing: Path) -> list[LabelledFile]:
    wrong = next((row for row, (_, label) in enumerate(rows) if not 0 <= label < len(classes)), None)
    if wrong is not None:
        raise UserError(f"{listing}: scene {wrong} is not one of the {len(classes)} classes; download it again")
    return rows


def open_kitti(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """KITTI-Dist from the object data (Geiger et al. 2012): training/image_2/, training/label_2/, mapping/.

    The training images are divided by video, as TensorFlow Datasets does: a tenth of the videos (rounded down) for
    testing and as many for validation, drawn by numpy's frozen generator from seed 123. mapping/ holds the devkit's
    train_rand.txt and train_mapping.txt.
    """
    splits = _kitti_splits(folder / "mapping")
    if split not in splits:
        raise no_split(folder, split)
    labels = folder / "training/label_2"
    rows = [
        (folder / "training/image_2" / f"{image:06d}.png", _kitti_label(labels / f"{image:06d}.txt"))
        for image in splits[split]
    ]
    return files_source(f"{folder} ({split} split)", folder, numbered(4), rows, bad)


def _kitti_label(path: Path) -> int:
    try:
        return kitti_distance([(words[0], float(words[13])) for words in read_rows(path, 14)])  # type .. x y z rotation
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: an object has an impossible distance; download the data set again") from error


def _kitti_splits(mapping: Path) -> dict[str, list[int]]:
    """The image numbers of each split."""
    words = read_text(mapping / "train_rand.txt").replace(",", " ").split()
    order = [number(word, mapping / "train_rand.txt", place) for place, word in enumerate(words, 1)]
    lines = read_rows(mapping / "train_mapping.txt", 2)
    if not order or min(order) < 1 or max(order) > len(lines):
        raise UserError(f"{mapping}: train_rand.txt and train_mapping.txt do not match; download both again")
    videos: dict[str, list[int]] = {}
    for image, line in enumerate(order):
        videos.setdefault(lines[line - 1][1], []).append(image)
    count = max(1, KITTI_PERCENT * len(videos) // 100)
    if len(videos) < 2 * count + 1:
        raise UserError(f"{mapping}: {len(videos)} videos are too few to divide; download the data set again")
    # The old generator's stream is frozen by numpy for good, which is what makes this division repeatable.
    random = np.random.RandomState(KITTI_SEED)
    test = set(random.choice(sorted(videos), count, replace=False).tolist())
    validation = set(random.choice(sorted(videos.keys() - test), count, replace=False).tolist())
    splits: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for video, images in videos.items():
        splits["test" if video in test else "validation" if video in validation else "train"] += images
    return splits


def open_dsprites_location(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """dSpr-Loc from dSprites' npz (Matthey et al. 2017): 16 groups of the horizontal position.

    All images are unpacked on opening and kept as bits: 360 MiB.
    """
    return _open_dsprites(folder, split, POSITION_X)


def open_dsprites_orientation(folder: Path, split: str, bad: Bad = "refuse") -> ArraySource:
    """dSpr-Ori: 16 groups of the orientation; see `open_dsprites_location`."""
    return _open_dsprites(folder, split, ORIENTATION)


def _open_dsprites(folder: Path, split: str, attribute: int) -> ArraySource:
    if split != "train":
        raise no_split(folder, split)
    path = folder / DSPRITES_FILE
    try:
        with zipfile.ZipFile(path) as archive:
            latents_N6 = _npy(archive, "latents_classes.npy", lambda rows: rows.astype(np.int64))
            bits_NV = _npy(archive, "imgs.npy", lambda rows: np.packbits(rows.reshape(len(rows), -1) != 0, axis=1))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: it cannot be read ({describe_error(error)}); download the data set again") from error
    if latents_N6.shape != (len(bits_NV), 6) or bits_NV.shape[1] != 64 * 64 // 8:
        raise UserError(f"{path}: its images and latents do not match; download the data set again")
    values = DSPRITES_SIZES[attribute]
    labels_N = grouped(latents_N6[:, attribute], values, 16)

    def pixels(index: int) -> NDArray[np.uint8]:
        return np.unpackbits(bits_NV[index]).reshape(64, 64) * np.uint8(255)

    return array_source(f"{folder} (train split)", f"{split}/", numbered(16), labels_N, 64 * 64, pixels)


def _npy(archive: zipfile.ZipFile, member: str, convert: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """An array of an npz, converted in pieces as it is unpacked, so that it is never in memory in full."""
    with archive.open(member) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{member} is of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        size = prod(shape[1:]) * dtype.itemsize
        if fortran or dtype.hasobject or not shape or not 0 < size * shape[0] <= MAX_ARRAY:
            raise ValueError(f"{member} is not a plain array of acceptable size")
        step = max(1, 2**24 // size)
        blocks = [
            convert(_read_rows(file, min(step, shape[0] - row), shape[1:], dtype)) for row in range(0, shape[0], step)
        ]
    return np.concatenate(blocks)


def _read_rows(file: IO[bytes], rows: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = rows * prod(shape) * dtype.itemsize
    body = file.read(size)
    if len(body) != size:
        raise ValueError("the archive is cut short")
    return np.frombuffer(body, dtype).reshape(rows, *shape)


def clevr_count(objects: int) -> int:
    """Clevr-Count: scenes hold 3 to 10 objects, so 8 classes."""
    return objects - 3


def bin_of(value: float, starts: Sequence[float]) -> int:
    """The last bin that starts below `value`; a value on a start belongs to the bin before."""
    return max(number for number, start in enumerate(starts) if start < value)


def clevr_distance(depths: Sequence[float]) -> int:
    """Clevr-Dist: the bin of the nearest object's depth (the third of its pixel coordinates), 6 classes."""
    return bin_of(min(depths), CLEVR_DISTANCES)


def kitti_distance(objects: Sequence[tuple[str, float]]) -> int:
    """KITTI-Dist: the bin of the nearest vehicle's z, 4 classes of which the last is "no vehicle".

    Args:
        objects: each annotated object's type, and its z in metres from the camera.
    """
    return bin_of(min([z for kind, z in objects if kind in VEHICLES] + [NO_VEHICLE]), KITTI_DISTANCES)


def grouped(labels_N: NDArray[np.int64], values: int, classes: int) -> NDArray[np.int64]:
    """Neighbouring values of an attribute as one class: floor(label / (values / classes)).

    dSpr-Loc groups 32 positions, dSpr-Ori 40 orientations, each into 16 classes.
    """
    return labels_N * classes // values
