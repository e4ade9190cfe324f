"""Image folders: one folder per class, with or without a split of their own."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vitlab.data.decoding import refuse
from vitlab.data.images import is_image_name, read_file, walk_images
from vitlab.data.sources import Bad, NotInShards, Sample, TrainOrTest, check_classes, fingerprint, split_by_name
from vitlab.errors import UserError

TEST_FOLDERS = ("val", "validation", "test")
LAYOUT = "put images into train/CLASS/ and val/CLASS/, or into CLASS/ to have them split"

LabelledFile = tuple[Path, int]  # an image file and its label

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FolderSource(NotInShards):
    """Image files with labels; see `sources.Source`. Keys are the files' paths below `root`."""

    files: tuple[str, ...]
    root: str
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The file's path below `root`; see `sources.Source.key`."""
        return self.files[index].removeprefix(self.root).replace(os.sep, "/").lstrip("/")

    def read(self, index: int) -> Sample:
        """The file at `index`; see `sources.Source.read`."""
        path = self.files[index]
        return Sample(read_file(Path(path)), int(self.labels_N[index]), path)


def open_folder(folder: Path, split: TrainOrTest, bad: Bad = "refuse") -> FolderSource:
    """Opens one side of an image folder.

    `folder` holds train/ and one of val/, validation/ and test/ (the first that exists), each with one folder
    per class; or it holds one folder per class itself, and is split 80 / 20 by the file names. Class names are
    the training folders' in sorted order, so an empty class does not shift labels. Images may lie deeper; hidden
    files are left out; links are followed.

    Raises:
        UserError: no class folders, a single class, a class without training images; an empty or unreadable
            file, unless `bad` is "skip".
    """
    train = folder / "train"
    if not train.is_dir():
        return _split_one(folder, split, bad)
    found = _scan(train, warn=split == "train")
    classes = _filled(found)
    if split == "train":
        return files_source(str(train), train, classes, _rows(train, found, classes), bad)
    for name in TEST_FOLDERS:
        test = folder / name
        if test.is_dir():
            return files_source(str(test), test, classes, _rows(test, _scan(test, warn=True), classes), bad)
    raise UserError(
        f"{folder}: there is train/ but no {' or '.join(f'{name}/' for name in TEST_FOLDERS)}; "
        f"add one, or name {train} as the source to have it split"
    )


def open_class_folders(
    folder: Path, name: str, bad: Bad = "refuse", *, root: Path, classes: tuple[str, ...] | None = None
) -> FolderSource:
    """Every image of a folder that holds one folder per class, without any split.

    Args:
        folder: what is read.
        name: what the source is called.
        bad: whether an empty or unreadable file is refused or left out.
        root: what the keys are relative to; `folder` or one above it.
        classes: the training side's, where they are known.

    Raises:
        UserError: see `open_folder`.
    """
    found = _scan(folder, warn=True)
    classes = classes or _filled(found)
    return files_source(name, root, classes, _rows(folder, found, classes), bad)


def folder_classes(folder: Path) -> tuple[str, ...]:
    """The names of the class folders that hold images, sorted.

    Raises:
        UserError: there is no class folder, or it cannot be listed.
    """
    return _filled(_scan(folder))


def _split_one(folder: Path, split: TrainOrTest, bad: Bad) -> FolderSource:
    found = _scan(folder, warn=split == "train")
    classes = _filled(found)
    rows = _rows(folder, found, classes)
    all_files = files_source(f"{folder} ({split} split)", folder, classes, rows, bad)
    # All names are divided, those of unreadable files too: a file that becomes unreadable moves no other one.
    names = [path.relative_to(folder).as_posix() for path, _ in rows]
    kept = {rows[index][0] for index in split_by_name(names, [label for _, label in rows], split)}
    mine = [
        (Path(file), int(label))
        for file, label in zip(all_files.files, all_files.labels_N, strict=True)
        if Path(file) in kept
    ]
    if not mine:
        raise UserError(f"{folder}: {len(rows)} images are too few to split; give two or more per class")
    return replace(files_source(all_files.name, folder, classes, mine), skipped=all_files.skipped)


def _class_folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            kept = [entry for entry in entries if not entry.name.startswith(".")]
            folders = sorted(Path(entry.path) for entry in kept if entry.is_dir())
            flat = any(is_image_name(entry.name) for entry in kept)
    except OSError as error:
        raise UserError(
            f"{folder}: this folder cannot be listed ({error.strerror}); check it and its permissions"
        ) from error
    if not folders:
        what = "its images are not in class folders" if flat else "it holds no class folders"
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


def _rows(folder: Path, found: dict[str, list[Path]], classes: tuple[str, ...]) -> list[LabelledFile]:
    """Every image with its label; a class without training images is refused."""
    foreign = [name for name in _filled(found) if name not in classes]
    if foreign:
        listed = ", ".join(f"'{name}'" for name in foreign[:10]) + (" ..." if len(foreign) > 10 else "")
        raise UserError(f"{folder}: no training images for its class {listed}; add some, or remove the class here")
    rows = [(path, label) for label, name in enumerate(classes) for path in found.get(name, [])]
    if not rows:
        raise UserError(f"{folder}: there is no image in its class folders; {LAYOUT}")
    return rows


def _size(path: Path) -> int:
    """The file's size in bytes; an empty or missing file is refused here, before any training."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise refuse(str(path), f"it cannot be read ({error.strerror})") from error
    if size == 0:
        raise refuse(str(path), "it is empty (0 bytes)")
    return size


def files_source(
    name: str, root: Path, classes: tuple[str, ...], rows: Sequence[LabelledFile], bad: Bad = "refuse"
) -> FolderSource:
    """A source of image files whose labels are known.

    Args:
        name: what the source is called.
        root: a folder above every file.
        classes: names by label.
        rows: each file and its label.
        bad: whether an empty or unreadable file is refused or left out.

    Raises:
        UserError: fewer than two classes, no file left, or a file that is refused.
    """
    check_classes(name, classes)
    kept: list[tuple[Path, int, int]] = []
    skipped: list[str] = []
    for path, label in rows:
        try:
            kept.append((path, _size(path), label))
        except UserError as error:
            if bad == "refuse":
                raise
            skipped.append(str(error))
    if not kept:
        raise UserError(f"{name}: none of its {len(rows):,} images can be read; check the folder {root}")
    keyed = ((path.relative_to(root).as_posix(), size, label) for path, size, label in kept)
    labels_N = np.array([label for _, _, label in kept], np.int64)
    files = tuple(str(path) for path, _, _ in kept)
    return FolderSource(name, classes, labels_N, fingerprint(classes, keyed), files, str(root), tuple(skipped))
