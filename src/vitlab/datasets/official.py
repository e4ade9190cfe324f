"""Opens the data sets that have a name: finds where one lies, and cuts the wanted split out of its official splits."""

import logging
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from vitlab.data.folders import folder_classes, open_class_folders
from vitlab.data.sources import Bad, Source, Split, hashed_order, keyed_split, select
from vitlab.datasets.hub import find_parquet, hub_splits, parquet_splits, split_columns, split_source
from vitlab.datasets.manifests import pin, read_manifest
from vitlab.datasets.named import SETS, VTAB_PLACES, Place
from vitlab.datasets.tables import Columns, TableSource
from vitlab.errors import UserError
from vitlab.recipes import vtab
from vitlab.recipes.vtab import Cut, SplitName, VtabTask
from vitlab.shards.opening import open_shards
from vitlab.shards.source import ShardSource

ALIASES = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
VTAB_SPLITS: dict[Split, SplitName] = {
    "train": "train800val200",
    "test": "test",
    "dev-train": "train800",
    "dev": "val200",
}

log = logging.getLogger(__name__)


def open_named(name: str, folder: Path | None, split: Split, bad: Bad = "refuse") -> Source:
    """One split of a data set of the catalog.

    A folder may hold splits/SPLIT.json, a manifest (see `manifests`) that says which samples the split has; for a VTAB
    task SPLIT is train800, val200, train800val200 or test, and the third consists of the first two where only these are
    pinned. Without a manifest a split is cut by the task's rule.

    Args:
        name: one of `named.names`.
        folder: where it lies; None for the hub.
        split: the wanted split.
        bad: whether unreadable files and incomplete samples are refused or left out.

    Raises:
        UserError: it is not there, not complete, or refused.
    """
    if name.startswith("vtab/"):
        return _open_vtab(vtab.get(name), folder, split, bad)
    found = SETS[name]
    place = Place(name, folder, found.hub, found.layout, found.classes, bad, found.exact)
    if split == "test":
        return _pinned(place, split, (found.test,)) or _cut(place, (found.test,), f"{name} (test split)")
    if found.train is None:
        raise UserError(f"{name}: this data set is for testing only; it has no {split} split")
    pinned = _pinned(place, split, (found.train,))
    if pinned is not None:
        return pinned
    train = _pinned(place, "train", (found.train,)) or _cut(place, (found.train,), f"{name} (train split)")
    return train if split == "train" else development(train, name, split, found.dev_share)


def development(train: Source, name: str, split: Split, share: float) -> Source:
    """dev-train or dev: a fixed division of the training side by the SHA-256 of the keys, the same share of each class.

    Args:
        train: the training side.
        name: what the data set is called.
        split: "dev-train" or "dev".
        share: of each class that goes into dev.

    Raises:
        UserError: it is too small to be divided.
    """
    kept = keyed_split(train, "test" if split == "dev" else "train", share)
    return select(f"{name} ({split} split)", [(train, kept)])


def _cut(place: Place, cuts: tuple[Cut, ...], name: str) -> Source:
    """The samples that the cuts take from the official splits, in order."""
    splits = {split: open_official(place, split) for split in sorted({cut.split for cut in cuts})}
    opened = {split: source for split, (source, _) in splits.items()}
    if cuts == (Cut(cuts[0].split),):
        return opened[cuts[0].split]
    orders = {
        split: range(len(source)) if is_ordered else hashed_order(source)
        for split, (source, is_ordered) in splits.items()
    }
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
        raise UserError(
            f"{path}: it is the manifest of {manifest.data}'s {manifest.split}; put the right one in its place"
        )
    opened = [open_official(place, official)[0] for official in sorted({cut.split for cut in cuts})]
    return pin(manifest, opened, f"{place.name} ({split} split)")


def _manifest_path(place: Place, split: str) -> Path | None:
    path = None if place.folder is None else place.folder / "splits" / f"{split}.json"
    return path if path is not None and path.is_file() else None


def _open_vtab(task: VtabTask, folder: Path | None, split: Split, bad: Bad) -> Source:
    layout, hub = VTAB_PLACES[task.name]
    place = Place(f"vtab/{task.name}", folder, hub, layout, task.classes, bad)
    split_name = VTAB_SPLITS[split]
    cuts = task.cuts_of(split_name)
    pinned = _pinned(place, split_name, cuts)
    if pinned is not None:
        return pinned
    name = f"{place.name} ({split_name} split)"
    halves: tuple[Split, Split] = ("dev-train", "dev")
    if split == "train" and any(_manifest_path(place, VTAB_SPLITS[half]) is not None for half in halves):
        both = [_open_vtab(task, folder, half, bad) for half in halves]
        return select(name, [(source, range(len(source))) for source in both])
    source = _cut(place, cuts, name)
    if split_name == "test":
        if len(source) != task.test_images:
            log.warning("%s: %s images where the benchmark has %s", source.name, len(source), task.test_images)
    elif (held := len(np.unique(source.labels_N))) < min(task.classes, len(source) // 20):
        log.warning("%s: it holds %s of %s classes; its order may be sorted", source.name, held, task.classes)
    return source


def open_official(place: Place, split: str) -> tuple[Source, bool]:
    """All samples of an official split ("train", "validation" or "test"), and whether their order may be cut.

    In a folder these are looked for in turn: the data set's own layout; Parquet files; tar shards SPLIT-*.tar or
    SPLIT/*.tar; SPLIT/CLASS/ image folders; for "train" also CLASS/ image folders without any split. Tables and shards
    have an order of their own; files and arrays are sorted by class.

    Raises:
        UserError: nothing of this exists, it is refused, or its classes are not as many as the data set has.
    """
    rows = _table_or_shards(place, split)
    if rows is not None:
        numbers = tuple(map(str, range(place.classes)))
        if place.exact and rows.classes == numbers[: len(rows.classes)]:
            rows = replace(rows, classes=numbers)  # the last classes have no sample, and no names
        return _checked(rows, place), True
    return _checked(_files(place, split), place), False


def _checked(source: Source, place: Place) -> Source:
    count = len(source.classes)
    if place.exact and count != place.classes:
        raise UserError(
            f"{source.name}: it has {count:,} classes, {place.name} has {place.classes:,}; is it the right one?"
        )
    return source


def _table_or_shards(place: Place, split: str) -> TableSource | ShardSource | None:
    if place.folder is None:
        return _from_hub(place, split)
    if _own_layout(place, place.folder) is not None:
        return None
    tables = find_parquet(place.folder)
    if tables:
        return split_source(parquet_splits(tables, str(place.folder)), split, str(place.folder), Columns())
    return _from_shards(place.folder, split, place.bad)


def _files(place: Place, split: str) -> Source:
    assert place.folder is not None
    root = _own_layout(place, place.folder)
    if place.layout is not None and root is not None:
        return place.layout.read(root, split, place.bad)
    return _from_classes(place, place.folder, split)


def _own_layout(place: Place, folder: Path) -> Path | None:
    """Where the data set lies in its own layout, if it does.

    Raises:
        UserError: there is no such folder; it holds pickles; or no other layout will do.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; {place.name} is expected there")
    if place.layout is None:
        return None
    for root in (folder, *(folder / name for name in place.layout.inner)):
        if any((root / marker).exists() for marker in place.layout.markers):
            return root
    if any((folder / name).exists() for name in place.layout.pickled):
        raise UserError(
            f"{folder}: this version of {place.name} consists of pickles, which can run code; "
            f"download the binary version ({place.layout.looks})"
        )
    if place.layout.alone:
        raise UserError(f"{folder}: {place.name} must lie there as {place.layout.looks}; nothing of it was found")
    return None


def _from_hub(place: Place, split: str) -> TableSource:
    if place.hub is None:
        raise UserError(
            f"{place.name}: no hub version of it is known; give its folder as {place.name}=PATH, "
            f"or as $VITLAB_DATA/{place.name} (docs/datasets.md lists the layouts)"
        )
    address, columns = split_columns(place.hub)
    return split_source(hub_splits(address), split, address, columns)


def _from_shards(folder: Path, split: str, bad: Bad) -> ShardSource | None:
    def tars(wanted: str) -> list[Path]:
        names = ALIASES[wanted]
        flat = [path for path in sorted(folder.glob("*.tar")) if re.split(r"[-_.]", path.name)[0] in names]
        return flat or [path for name in names for path in sorted((folder / name).glob("*.tar"))]

    found = tars(split)
    if not found:
        return None
    train = tars("train") if split != "train" else []
    classes = open_shards(train, f"{folder} (train split)", bad=bad).classes if train else None
    return open_shards(found, f"{folder} ({split} split)", classes=classes, bad=bad)


def _from_classes(place: Place, folder: Path, split: str) -> Source:
    sides = {wanted: _side(folder, wanted) for wanted in ALIASES}
    name = f"{folder} ({split} split)"
    if split == "train" and not any(sides.values()):
        return open_class_folders(folder, name, place.bad, root=folder)
    found, train = sides[split], sides["train"]
    if found is None:
        own = "" if place.layout is None else f"{place.layout.looks}; or "
        wanted = ALIASES[split][0]
        raise UserError(
            f"{folder}: {place.name} has no {split} split there; put {own}{split}-*.parquet, "
            f"{wanted}-*.tar or {wanted}/CLASS/ into it"
        )
    classes = folder_classes(train) if train is not None and split != "train" else None
    return open_class_folders(found, name, place.bad, root=folder, classes=classes)


def _side(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in ALIASES[split] if (folder / name).is_dir()), None)
