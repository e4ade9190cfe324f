"""Opens the catalog's data sets: finds where one lies, and cuts the wanted part out of its official splits."""

import logging
import os
from pathlib import Path

import numpy as np

from vitlab.data.selections import keyed_split, select
from vitlab.data.sources import Bad, Source, Split
from vitlab.datasets.manifests import pin, read_manifest
from vitlab.datasets.named import SETS, VTAB_PLACES, names
from vitlab.datasets.official import Place, open_official, ordered
from vitlab.errors import UserError
from vitlab.recipes import vtab
from vitlab.recipes.vtab import Cut, SplitName, VtabTask

VARIABLE = "VITLAB_DATA"
VTAB_SPLITS: dict[Split, SplitName] = {
    "train": "train800val200",
    "test": "test",
    "dev-train": "train800",
    "dev": "val200",
}

log = logging.getLogger(__name__)


def split_path(source: str) -> tuple[str, Path | None]:
    """The catalog name and the folder in NAME=PATH; the folder of a bare name is $VITLAB_DATA/NAME, if it is there."""
    name, equals, path = source.partition("=")
    if equals and name in names():
        return name, Path(path).expanduser()
    base = os.environ.get(VARIABLE)
    folder = Path(base).expanduser() / source if base else None
    return source, folder if folder is not None and folder.is_dir() else None


def open_named(name: str, folder: Path | None, part: Split, bad: Bad = "refuse") -> Source:
    """One part of a data set of the catalog.

    A folder may hold splits/PART.json, a manifest (see `manifests`) that says which samples the part has; for a VTAB
    task PART is train800, val200, train800val200 or test, and the third consists of the first two where only these are
    pinned. Without a manifest a part is cut by the task's rule.

    Args:
        name: one of `named.names`.
        folder: where it lies; None for the hub.
        part: the wanted part.
        bad: whether unreadable files and incomplete samples are refused or left out.

    Raises:
        UserError: it is not there, not complete, or refused.
    """
    if name.startswith("vtab/"):
        return _open_vtab(vtab.get(name), folder, part, bad)
    found = SETS[name]
    place = Place(name, folder, found.hub, found.layout, found.classes, bad, found.exact)
    if part == "test":
        return _pinned(place, part, (found.test,)) or _cut(place, (found.test,), f"{name} (test part)")
    if found.train is None:
        raise UserError(f"{name}: this data set is for testing only; it has no {part} part")
    pinned = _pinned(place, part, (found.train,))
    if pinned is not None:
        return pinned
    train = _pinned(place, "train", (found.train,)) or _cut(place, (found.train,), f"{name} (train part)")
    return train if part == "train" else development(train, name, part, found.dev_share)


def development(train: Source, name: str, part: Split, share: float) -> Source:
    """dev-train or dev: a fixed division of the training side by the SHA-256 of the keys, the same share of each class.

    Args:
        train: the training side.
        name: what the data set is called.
        part: "dev-train" or "dev".
        share: of each class that goes into dev.

    Raises:
        UserError: it is too small to be divided.
    """
    kept = keyed_split(train, "test" if part == "dev" else "train", share)
    return select(f"{name} ({part} part)", [(train, kept)])


def _cut(place: Place, cuts: tuple[Cut, ...], name: str) -> Source:
    """The samples that the cuts take from the official splits, in order."""
    opened = {split: open_official(place, split) for split in sorted({cut.split for cut in cuts})}
    if cuts == (Cut(cuts[0].split),):
        return opened[cuts[0].split]
    orders = {split: ordered(source) for split, source in opened.items()}
    try:
        chosen = [
            (opened[cut.split], [orders[cut.split][at] for at in cut.bounds(len(opened[cut.split]))]) for cut in cuts
        ]
    except UserError as error:
        raise UserError(f"{place.folder or place.hub}: {error}; is {place.name} complete?") from error
    return select(name, chosen)


def _pinned(place: Place, split: str, cuts: tuple[Cut, ...]) -> Source | None:
    """The split that splits/SPLIT.json in the folder pins, where there is one."""
    path = _manifest_path(place, split)
    if path is None:
        return None
    manifest = read_manifest(path)
    if manifest.data != place.name or manifest.split != split:
        raise UserError(f"{path}: it is the manifest of {manifest.data}'s {manifest.split}; put the right one there")
    opened = [open_official(place, official) for official in sorted({cut.split for cut in cuts})]
    return pin(manifest, opened, f"{place.name} ({split} part)")


def _manifest_path(place: Place, split: str) -> Path | None:
    path = None if place.folder is None else place.folder / "splits" / f"{split}.json"
    return path if path is not None and path.is_file() else None


def _open_vtab(task: VtabTask, folder: Path | None, part: Split, bad: Bad) -> Source:
    layout, hub = VTAB_PLACES[task.name]
    place = Place(f"vtab/{task.name}", folder, hub, layout, task.classes, bad)
    split = VTAB_SPLITS[part]
    cuts = task.parts(split)
    pinned = _pinned(place, split, cuts)
    if pinned is not None:
        return pinned
    name = f"{place.name} ({split} part)"
    halves: tuple[Split, Split] = ("dev-train", "dev")
    if part == "train" and any(_manifest_path(place, VTAB_SPLITS[half]) is not None for half in halves):
        both = [_open_vtab(task, folder, half, bad) for half in halves]
        return select(name, [(source, range(len(source))) for source in both])
    source = _cut(place, cuts, name)
    if split == "test":
        if len(source) != task.test_images:
            log.warning("%s: %s images where the benchmark has %s", source.name, len(source), task.test_images)
    elif (held := len(np.unique(source.labels_N))) < min(task.classes, len(source) // 20):
        log.warning("%s: it holds %s of %s classes; its order may be sorted", source.name, held, task.classes)
    return source
