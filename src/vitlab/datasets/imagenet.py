"""ImageNet and what is measured with it: flat validation folders, ReaL labels, ImageNetV2, ObjectNet."""

import re
from pathlib import Path

from vitlab.data.folders import FolderSource, LabelledFile, files_source, open_class_folders
from vitlab.data.images import walk_images
from vitlab.data.sources import Bad
from vitlab.datasets.annotation_files import number, read_csv, read_json, read_rows, read_text
from vitlab.datasets.photos import flat_images
from vitlab.errors import UserError

KAGGLE = "LOC_val_solution.csv"
SYNSETS = "imagenet_2012_validation_synset_labels.txt"
SYNSET = re.compile(r"n\d{8}")
REAL_IMAGES = 50_000
CLASSES = 1000

# The classes that ObjectNet shares with ImageNet: ObjectNet's name -> ImageNet labels, one or several
ObjectNetMapping = dict[str, tuple[int, ...]]


def open_imagenet(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """ImageNet-1k (Russakovsky et al. 2015): train/SYNSET/NAME.JPEG, and val/SYNSET/NAME.JPEG or a flat val/.

    A label is the position of its synset in sorted order. A flat val/ needs one of the lists that are published with
    it, in `folder`: imagenet_2012_validation_synset_labels.txt (a synset for each file in sorted order) or Kaggle's
    LOC_val_solution.csv. The numbers of the development kit (ILSVRC2012_validation_ground_truth.txt) have an order
    of their own and are not read. Validation images come sorted by their own names, whatever folder they are in:
    the order of ReaL's labels (see `read_real_labels`).

    Raises:
        UserError: a folder or list is missing, or does not fit the images.
    """
    root = next((path for path in (folder / "ILSVRC/Data/CLS-LOC",) if path.is_dir()), folder)
    classes = _synsets(folder, root)
    if split == "train":
        return open_class_folders(root / "train", f"{folder} (train split)", bad, root=root, classes=classes)
    if split != "validation":
        raise UserError(f"{folder}: ImageNet's test labels are not public; its validation images are the test side")
    name = f"{folder} (validation split)"
    return files_source(name, root, classes, _validation(folder, root / "val", classes), bad)


def _synsets(folder: Path, root: Path) -> tuple[str, ...]:
    """The sorted synsets: the folders of train/, else of val/, else those that label a flat val/."""
    for side in (root / "train", root / "val"):
        if side.is_dir():
            found = sorted(path.name for path in side.iterdir() if SYNSET.fullmatch(path.name) and path.is_dir())
            if found:
                return tuple(found)
    flat = flat_images(root / "val") if (root / "val").is_dir() else []
    if not flat:
        raise UserError(
            f"{folder}: there are no folders named after synsets, such as train/n01440764; is the path right?"
        )
    return tuple(sorted(set(_listed_synsets(folder, flat))))


def _validation(folder: Path, val: Path, classes: tuple[str, ...]) -> list[LabelledFile]:
    """Validation images, sorted by their own names, with labels."""
    labels = {synset: label for label, synset in enumerate(classes)}
    flat = flat_images(val)
    synsets = _listed_synsets(folder, flat) if flat else None
    images = flat or sorted(walk_images(val), key=lambda path: path.name)
    named = synsets or [path.parent.name for path in images]
    foreign = next((synset for synset in named if synset not in labels), None)
    if foreign is not None:
        raise UserError(f"{val}: no training images for its class '{foreign}'; add some, or remove the class here")
    return [(path, labels[synset]) for path, synset in zip(images, named, strict=True)]


def _listed_synsets(folder: Path, images: list[Path]) -> list[str]:
    """The synset of each image of a flat folder, from the list beside it."""
    if (folder / SYNSETS).is_file():
        synsets = [row[0] for row in read_rows(folder / SYNSETS, 1)]
        if len(synsets) != len(images):
            raise UserError(f"{folder / SYNSETS}: it labels {len(synsets):,} images, val/ holds {len(images):,}")
        return synsets
    if (folder / KAGGLE).is_file():
        rows = read_csv(folder / KAGGLE, ("ImageId", "PredictionString"))
        known = {row["ImageId"]: row["PredictionString"].partition(" ")[0] for row in rows}
        missing = next((path.name for path in images if path.stem not in known), None)
        if missing is not None:
            raise UserError(f"{folder / KAGGLE}: it has no label for {missing}; download it again")
        return [known[path.stem] for path in images]
    raise UserError(f"{folder}: val/ is flat; put {SYNSETS} or {KAGGLE} beside it, or sort it into val/SYNSET/")


def open_imagenet_v2(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """ImageNetV2 (Recht et al. 2019): folders 0 .. 999 whose names are ImageNet's labels themselves.

    Sorted as text, 10 would come before 2, a common cause of wrong accuracies; here they are numbers.

    Raises:
        UserError: a folder has another name; it holds no images.
    """
    if split != "test":
        raise UserError(f"{folder}: ImageNetV2 has a test split only")
    inner = sorted(path for path in folder.glob("imagenetv2-*") if path.is_dir())
    root = inner[0] if len(inner) == 1 else folder
    rows: list[LabelledFile] = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.is_dir() and not path.name.startswith("."):
            label = number(path.name, root, 1) if path.name.isdigit() else CLASSES
            if label >= CLASSES:
                raise UserError(f"{path}: ImageNetV2's folders are numbers from 0 to 999; is the path right?")
            rows += [(image, label) for image in walk_images(path)]
    if not rows:
        raise UserError(f"{folder}: there are no folders 0 to 999 with images in it; is the path right?")
    return files_source(f"{folder} (test split)", root, tuple(map(str, range(CLASSES))), rows, bad)


def read_real_labels(path: Path) -> list[list[int]]:
    """ImageNet-ReaL's labels (Beyer et al. 2020): real.json, one list of labels for each validation image.

    List i belongs to ILSVRC2012_val_{i + 1:08d}.JPEG. An empty list leaves its image out of the accuracy.

    Raises:
        UserError: it is not a list of 50,000 lists of different numbers from 0 to 999.
    """
    found = read_json(path)
    if not isinstance(found, list) or len(found) != REAL_IMAGES:
        count = f"{len(found):,} entries" if isinstance(found, list) else "no list"
        raise UserError(f"{path}: it holds {count}; ReaL has a list for each of {REAL_IMAGES:,} images")
    for row, labels in enumerate(found):
        valid = isinstance(labels, list) and all(type(label) is int and 0 <= label < CLASSES for label in labels)
        if not valid or len(set(labels)) != len(labels):
            raise UserError(f"{path}: entry {row} is {str(labels)[:40]}, not a list of different labels from 0 to 999")
    return found


def open_objectnet(folder: Path, split: str, bad: Bad = "refuse") -> FolderSource:
    """ObjectNet (Barbu et al. 2019): images/FOLDER/NAME.png and mappings/folder_to_objectnet_label.json; test only.

    All 313 classes, by the sorted names of the mapping. The images have a red border of one pixel, which is kept.

    Raises:
        UserError: a file is missing or malformed, or a folder has no class.
    """
    if split != "test":
        raise UserError(f"{folder}: ObjectNet is for testing only")
    mapping = _names(folder / "mappings/folder_to_objectnet_label.json")
    classes = sorted(set(mapping.values()))
    labels = {name: label for label, name in enumerate(classes)}
    rows: list[LabelledFile] = []
    images = folder / "images"
    for image in walk_images(images):
        name = image.relative_to(images).parts[0]
        if name not in mapping:
            raise UserError(f"{images / name}: this folder is no class of ObjectNet's mapping; is the path right?")
        rows.append((image, labels[mapping[name]]))
    return files_source(f"{folder} (test split)", folder, tuple(classes), rows, bad)


def read_objectnet_mapping(folder: Path) -> ObjectNetMapping:
    """Reads ObjectNet's own mapping files, in `folder`/mappings.

    objectnet_to_imagenet_1k.json gives ImageNet names, joined by "; ", for each shared class;
    imagenet_to_label_2012_v2 holds a name on each line; pytorch_to_imagenet_2012_id.json says which line belongs to
    which label, where a label is the position of its synset in sorted order.

    Raises:
        UserError: a file is missing or malformed, or a name is unknown; two classes claim the same ImageNet label.
    """
    mappings = folder / "mappings"
    shared = _names(mappings / "objectnet_to_imagenet_1k.json")
    lines_path, ids_path = mappings / "imagenet_to_label_2012_v2", mappings / "pytorch_to_imagenet_2012_id.json"
    lines = [line.strip() for line in read_text(lines_path).splitlines()]
    ids = read_json(ids_path)
    if not isinstance(ids, dict) or not all(type(line) is int and 0 <= line < len(lines) for line in ids.values()):
        raise UserError(f"{ids_path}: it does not map labels to lines of {lines_path.name}; download it again")
    by_name = {lines[line]: number(str(label), ids_path, row) for row, (label, line) in enumerate(ids.items(), 1)}
    found: ObjectNetMapping = {}
    for name, joined in shared.items():
        unknown = next((part for part in joined.split("; ") if part not in by_name), None)
        if unknown is not None:
            raise UserError(f"{mappings}: ImageNet has no class named {unknown[:60]!r}; download the mappings again")
        found[name] = tuple(by_name[part] for part in joined.split("; "))
    every = [label for labels in found.values() for label in labels]
    if len(set(every)) != len(every):
        raise UserError(f"{mappings}: an ImageNet class is in two classes of ObjectNet; download the mappings again")
    return found


def _names(path: Path) -> dict[str, str]:
    """A JSON object of text to text."""
    found = read_json(path)
    if not isinstance(found, dict) or not found or not all(isinstance(value, str) for value in found.values()):
        raise UserError(f"{path}: this is not a mapping of names to names; download it again")
    return found
