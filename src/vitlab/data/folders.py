"""Image folders: one folder a class, with or without a split of their own."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.images import is_image_name, read_file, walk_images
from vitlab.data.pillow import refuse
from vitlab.data.sources import Sample, Split, check_classes, fingerprint, split_by_name
from vitlab.errors import UserError

TEST_FOLDERS = ("val", "validation", "test")
LAYOUT = "put images into train/CLASS/ and val/CLASS/, or into CLASS/ to have them split"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Images in folders named as their classes; see `sources.Source`."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> Sample:
        """The file at `index`; see `sources.Source.read`."""
        path = self.files[index]
        return Sample(read_file(Path(path)), int(self.labels_N[index]), path)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    label: int
    size: int


def open_folder(folder: Path, split: Split) -> FolderSource:
    """Opens one side of an image folder.

    `folder` holds train/ and one of val/, validation/ and test/ (the first that exists), each with one folder
    a class; or it holds one folder a class itself, and is split 80 / 20 by the file names. Class names are
    the training folders' in sorted order, so an empty class shifts no label. Images may lie deeper; hidden
    files are left out; links are followed.

    Raises:
        UserError: no class folders, a single class, a class that training does not have, an empty file.
    """
    train = folder / "train"
    if not train.is_dir():
        return _split_one(folder, split)
    found = _scan(train, warn=split == "train")
    classes = _filled(found)
    if split == "train":
        return _source(str(train), train, classes, _files(train, found, classes))
    for name in TEST_FOLDERS:
        test = folder / name
        if test.is_dir():
            return _source(str(test), test, classes, _files(test, _scan(test, warn=True), classes))
    raise UserError(
        f"{folder}: there is train/ but none of {', '.join(f'{name}/' for name in TEST_FOLDERS)}; "
        f"add one, or name {train} as the source to have it split"
    )


def _split_one(folder: Path, split: Split) -> FolderSource:
    found = _scan(folder, warn=split == "train")
    classes = _filled(found)
    files = _files(folder, found, classes)
    names = [file.path.relative_to(folder).as_posix() for file in files]
    kept = split_by_name(names, [file.label for file in files], split)
    if not kept:
        raise UserError(f"{folder}: {len(files)} images are too few to split; give two or more of a class")
    return _source(f"{folder} ({split} part)", folder, classes, [files[index] for index in kept])


def _class_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".")]
            folders = sorted(Path(entry.path) for entry in kept if entry.is_dir())
            flat = any(is_image_name(entry.name) for entry in kept)
    except OSError as error:
        raise UserError(
            f"{folder}: this folder cannot be listed ({error.strerror}); check it and its rights"
        ) from error
    if not folders:
        what = "its images are in no class folders" if flat else "it holds no class folders"
        raise UserError(f"{folder}: {what}; {LAYOUT}")
    return folders


def _scan(folder: Path, *, warn: bool = False) -> dict[str, list[Path]]:
    """The sorted image files below each class folder."""
    found = {path.name: walk_images(path) for path in _class_folders(folder)}
    empty = [name for name, files in found.items() if not files]
    if warn and empty:
        log.warning("%s: left out, because there is no image in it: %s", folder, ", ".join(empty))
    return found


def _filled(found: dict[str, list[Path]]) -> tuple[str, ...]:
    return tuple(name for name, files in found.items() if files)


def _files(folder: Path, found: dict[str, list[Path]], classes: tuple[str, ...]) -> list[_File]:
    """Every image with its label and size; a class that training does not have is refused."""
    foreign = [name for name in _filled(found) if name not in classes]
    if foreign:
        listed = ", ".join(f"'{name}'" for name in foreign[:10]) + (" ..." if len(foreign) > 10 else "")
        raise UserError(f"{folder}: no training images for its class {listed}; add some, or remove the class here")
    files = [_File(path, label, _size(path)) for label, name in enumerate(classes) for path in found.get(name, [])]
    if not files:
        raise UserError(f"{folder}: there is no image in its class folders; {LAYOUT}")
    return files


def _size(path: Path) -> int:
    """The file's size in bytes; an empty or vanished file is refused here, before any training."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise refuse(str(path), f"it cannot be read ({error.strerror})") from error
    if size == 0:
        raise refuse(str(path), "it is empty (0 bytes)")
    return size


def _source(name: str, root: Path, classes: tuple[str, ...], files: list[_File]) -> FolderSource:
    check_classes(name, classes)
    rows = ((file.path.relative_to(root).as_posix(), file.size, file.label) for file in files)
    return FolderSource(
        name=name,
        classes=classes,
        labels_N=np.array([file.label for file in files], np.int64),
        fingerprint=fingerprint(classes, rows),
        files=tuple(str(file.path) for file in files),
    )
