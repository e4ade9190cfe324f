"""The official splits of a data set that has a name, from a folder of any layout that is understood, or the hub."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vitlab.data.folders import folder_classes, open_class_folders
from vitlab.data.selections import hashed_order
from vitlab.data.sources import Bad, Source
from vitlab.datasets.hub import find_parquet, hub_splits, parquet_splits, split_columns, split_source
from vitlab.datasets.tables import Columns, TableSource
from vitlab.errors import UserError
from vitlab.shards.source import ShardSource, open_shards

Reader = Callable[[Path, str, Bad], Source]  # (folder, official split, bad) -> all its samples
ALIASES = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}


@dataclass(frozen=True)
class Layout:
    """How people have a data set on disk: the files by which it is known, what it looks like, and who reads it."""

    markers: tuple[str, ...]
    looks: str
    read: Reader
    inner: tuple[str, ...] = ()  # folders that an archive wraps around it
    pickled: tuple[str, ...] = ()  # files by which a version of it is known that is never read
    alone: bool = False  # whether its order matters, so that no other form will do


@dataclass(frozen=True)
class Place:
    """Where a named data set is read from: a folder, or else the hub.

    Attributes:
        name: the data set's.
        folder: the user's; None reads from the hub.
        hub: hf://owner/name[@config][?label=COLUMN].
        layout: its own, beside those that every data set may have.
        classes: how many there are.
        exact: whether another number of them is refused.
        bad: see `folders.open_folder`.
    """

    name: str
    folder: Path | None
    hub: str | None
    layout: Layout | None
    classes: int
    bad: Bad = "refuse"
    exact: bool = True


def open_official(place: Place, split: str) -> Source:
    """All samples of an official split: "train", "validation" or "test".

    In a folder these are looked for in turn: the data set's own layout; Parquet files; tar shards SPLIT-*.tar or
    SPLIT/*.tar; SPLIT/CLASS/ image folders; for "train" also CLASS/ image folders without any split.

    Raises:
        UserError: nothing of this is there, it is refused, or its classes are not as many as the data set has.
    """
    source = _from_hub(place, split) if place.folder is None else _from_folder(place, place.folder, split)
    return _with_classes(source, place)


def ordered(source: Source) -> list[int]:
    """A split's order for cutting: a table's or a shard's own; files and arrays, which lie sorted, by hash."""
    if isinstance(source, TableSource | ShardSource):
        return list(range(len(source)))
    return hashed_order(source)


def _from_hub(place: Place, split: str) -> Source:
    if place.hub is None:
        raise UserError(
            f"{place.name}: no hub version of it is known; give its folder as {place.name}=PATH, "
            f"or as $VITLAB_DATA/{place.name} (docs/datasets.md tells the layouts)"
        )
    address, columns = split_columns(place.hub)
    return split_source(hub_splits(address), split, address, columns)


def _from_folder(place: Place, folder: Path, split: str) -> Source:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; it is where {place.name} is looked for")
    if place.layout is not None:
        for root in (folder, *(folder / name for name in place.layout.inner)):
            if any((root / marker).exists() for marker in place.layout.markers):
                return place.layout.read(root, split, place.bad)
        if any((folder / name).exists() for name in place.layout.pickled):
            raise UserError(
                f"{folder}: this version of {place.name} consists of pickles, which can run code; "
                f"get the binary version ({place.layout.looks})"
            )
        if place.layout.alone:
            raise UserError(f"{folder}: {place.name} has to lie there as {place.layout.looks}; nothing of it is there")
    tables = find_parquet(folder)
    if tables:
        return split_source(parquet_splits(tables, str(folder)), split, str(folder), Columns())
    return _from_shards(folder, split, place.bad) or _from_classes(place, folder, split)


def _from_shards(folder: Path, split: str, bad: Bad) -> Source | None:
    def tars(wanted: str) -> list[Path]:
        names = ALIASES[wanted]
        flat = [path for path in sorted(folder.glob("*.tar")) if re.split(r"[-_.]", path.name)[0] in names]
        return flat or [path for name in names for path in sorted((folder / name).glob("*.tar"))]

    found = tars(split)
    if not found:
        return None
    train = tars("train") if split != "train" else []
    classes = open_shards(train, f"{folder} (train part)", bad=bad).classes if train else None
    return open_shards(found, f"{folder} ({split} part)", classes=classes, bad=bad)


def _from_classes(place: Place, folder: Path, split: str) -> Source:
    sides = {wanted: _side(folder, wanted) for wanted in ALIASES}
    name = f"{folder} ({split} part)"
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


def _with_classes(source: Source, place: Place) -> Source:
    """The source with as many classes as the data set has: plain numbers are filled up, anything else is refused."""
    count = len(source.classes)
    if count == place.classes or not place.exact:
        return source
    numbers = tuple(map(str, range(place.classes)))
    if count < place.classes and source.classes == numbers[:count] and isinstance(source, TableSource | ShardSource):
        return replace(source, classes=numbers)
    raise UserError(
        f"{source.name}: it has {count:,} classes, {place.name} has {place.classes:,}; is it the right one?"
    )
