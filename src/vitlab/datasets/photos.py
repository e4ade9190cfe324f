"""Photo collections in the layout in which they are published: images, and lists that divide and label them.

Each reader takes the folder and an official split, and gives the images with labels in the lists' order. It raises a
UserError where there is no such split, or a file is missing or malformed.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.folders import FolderSource, LabelledFile, files_source, open_class_folders
from vitlab.data.images import is_image_name
from vitlab.data.sources import Bad, name_rank
from vitlab.datasets.annotation_files import inside, no_split, number, numbered, read_csv, read_mat, read_rows
from vitlab.errors import UserError

CALTECH_TRAIN = 30  # images per class for training, as in the original evaluation; the rest is for testing


def _source(folder: Path, split: str, classes: Iterable[str], rows: list[LabelledFile], bad: Bad) -> FolderSource:
    return files_source(f"{folder} ({split} split)", folder, tuple(classes), rows, bad)


def open_pets(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Oxford-IIIT Pets (Parkhi et al. 2012): images/NAME.jpg; annotations/trainval.txt, test.txt (NAME CLASS ...)."""
    lists = {"train": "trainval.txt", "test": "test.txt"}
    if split not in lists:
        raise no_split(folder, split)
    classes = {label: breed for _, label, breed in _pets(folder / "annotations" / lists["train"])}
    if sorted(classes) != list(range(len(classes))):
        raise UserError(f"{folder}: the classes in annotations/trainval.txt have gaps; download the data set again")
    listing = folder / "annotations" / lists[split]
    rows = [(inside(folder / "images", f"{name}.jpg", listing), label) for name, label, _ in _pets(listing)]
    return _source(folder, split, [classes[label] for label in sorted(classes)], rows, bad)


def _pets(listing: Path) -> list[tuple[str, int, str]]:
    """(image's name, label from 0, breed); the breed is the name without its number."""
    return [
        (name, number(label, listing, row) - 1, name.rpartition("_")[0])
        for row, (name, label, *_) in enumerate(read_rows(listing, 2), 1)
    ]


def open_flowers(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Flowers-102 (Nilsback and Zisserman 2008): jpg/image_00001.jpg, imagelabels.mat, setid.mat.

    Classes have numbers, 1 to 102, and no names there.
    """
    lists = {"train": "trnid", "validation": "valid", "test": "tstid"}
    if split not in lists:
        raise no_split(folder, split)
    labels_N = _whole(read_mat(folder / "imagelabels.mat", ("labels",))["labels"])
    chosen_N = _whole(read_mat(folder / "setid.mat", (lists[split],))[lists[split]])
    if (chosen_N < 1).any() or (chosen_N > len(labels_N)).any() or (labels_N < 1).any():
        raise UserError(f"{folder}: setid.mat and imagelabels.mat do not match; download both again")
    rows = [(folder / "jpg" / f"image_{image:05d}.jpg", int(labels_N[image - 1]) - 1) for image in chosen_N.tolist()]
    return _source(folder, split, map(str, range(1, int(labels_N.max()) + 1)), rows, bad)


def _whole(values: NDArray[np.generic]) -> NDArray[np.int64]:
    return values.ravel().astype(np.int64)


def open_dtd(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Describable Textures (Cimpoi et al. 2014), its first division: images/CLASS/NAME.jpg, labels/train1.txt etc."""
    lists = {"train": "train1.txt", "validation": "val1.txt", "test": "test1.txt"}
    return _open_listed(folder, split, lists, folder / "labels", folder / "images", bad)


def open_sun397(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """SUN397 (Xiao et al. 2010) as VTAB divides it: a/abbey/NAME.jpg, and TFDS's sun397_tfds_{tr,va,te}.txt."""
    lists = {"train": "sun397_tfds_tr.txt", "validation": "sun397_tfds_va.txt", "test": "sun397_tfds_te.txt"}
    return _open_listed(folder, split, lists, folder, folder, bad)


def _open_listed(folder: Path, split: str, lists: dict[str, str], where: Path, images: Path, bad: Bad) -> FolderSource:
    """Images that a list names by path; the class is the path's folder, numbered as the training list's are sorted."""
    if split not in lists:
        raise no_split(folder, split)
    classes = sorted({_class_of(name) for (name, *_) in read_rows(where / lists["train"], 1)})
    labels = {name: label for label, name in enumerate(classes)}
    listing = where / lists[split]
    names = [name for (name, *_) in read_rows(listing, 1)]
    foreign = next((name for name in names if _class_of(name) not in labels), None)
    if foreign is not None:
        raise UserError(f"{listing}: no training images for the class of {foreign!r}; download the data set again")
    rows = [(inside(images, name, listing), labels[_class_of(name)]) for name in names]
    return _source(folder, split, classes, rows, bad)


def _class_of(name: str) -> str:
    return name.strip("/").rpartition("/")[0]


def open_birds(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """CUB-200-2011 (Wah et al. 2011): images/, {images,image_class_labels,train_test_split,classes}.txt."""
    if split not in ("train", "test"):
        raise no_split(folder, split)
    listing = folder / "images.txt"
    images, labels, sides, classes = (
        {row[0]: row[1] for row in read_rows(folder / name, 2)}
        for name in ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    )
    if not images.keys() == labels.keys() == sides.keys() or set(labels.values()) - classes.keys():
        raise UserError(f"{folder}: images.txt and the lists beside it do not match; download all of them again")
    wanted = "1" if split == "train" else "0"
    order = {key: label for label, key in enumerate(classes)}
    rows = [
        (inside(folder / "images", name, listing), order[labels[key]])
        for key, name in images.items()
        if sides[key] == wanted
    ]
    return _source(folder, split, classes.values(), rows, bad)


def open_retinopathy(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Kaggle's Diabetic Retinopathy: train/NAME.jpeg, test/NAME.jpeg, trainLabels.csv, retinopathy_solution.csv.

    Validation is the solution's Public rows, test its Private rows. VTAB's images are resized as the winning entry
    did (`btgraham-300`); that has to be done before.
    """
    usage = {"validation": "Public", "test": "Private"}
    if split == "train":
        listing, images = folder / "trainLabels.csv", folder / "train"
        found = read_csv(listing, ("image", "level"))
    elif split in usage:
        listing, images = folder / "retinopathy_solution.csv", folder / "test"
        found = [row for row in read_csv(listing, ("image", "level", "Usage")) if row["Usage"] == usage[split]]
    else:
        raise no_split(folder, split)
    rows = [
        (inside(images, f"{row['image']}.jpeg", listing), number(row["level"], listing, place))
        for place, row in enumerate(found, 1)
    ]
    if any(label > 4 for _, label in rows):
        raise UserError(f"{listing}: it has levels beyond 4; download the data set again")
    return _source(folder, split, numbered(5), rows, bad)


def open_caltech101(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """Caltech-101 (Fei-Fei et al. 2004), one folder per class: 30 images of each for training, the rest for testing.

    Everyone draws their own 30; here they are the first by the SHA-256 of CLASS/NAME. A manifest pins others.

    Raises:
        UserError: see `folders.open_folder`; a class of fewer than 31 images.
    """
    if split not in ("train", "test"):
        raise no_split(folder, split)
    images = open_class_folders(folder, str(folder), bad, root=folder)
    rows: list[LabelledFile] = []
    for label, name in enumerate(images.classes):
        indices = np.flatnonzero(images.labels_N == label).tolist()
        ranked = sorted(indices, key=lambda index: name_rank(images.key(index)))
        if len(ranked) <= CALTECH_TRAIN:
            raise UserError(f"{folder / name}: {len(ranked)} images are too few; Caltech-101 has 31 or more per class")
        chosen = ranked[:CALTECH_TRAIN] if split == "train" else ranked[CALTECH_TRAIN:]
        rows += [(Path(images.files[index]), label) for index in sorted(chosen)]
    return _source(folder, split, images.classes, rows, bad)


def flat_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name.

    Raises:
        UserError: it cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_image_name(path.name))
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be listed ({error.strerror}); check it") from error
