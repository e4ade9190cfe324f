"""Where tables of images come from: the Hugging Face hub, or Parquet files; both through `datasets` (extra `hub`)."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from vitlab.data.decoding import describe_error
from vitlab.data.sources import TEST_SHARE, SelectedSource, TrainOrTest, keyed_split, select
from vitlab.datasets.tables import Columns, TableSource, table_source
from vitlab.errors import UserError

HUB_ID = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")
COLUMNS = re.compile(r"\?((?:image|label)=[^&?]+(?:&(?:image|label)=[^&?]+)?)$")
SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def is_hub_id(source: str) -> bool:
    """Whether `source` names a data set on the hub."""
    return source.startswith("hf://")


def split_columns(source: str) -> tuple[str, Columns]:
    """What the user wrote, without its `?image=COLUMN&label=COLUMN`, and those columns."""
    match = COLUMNS.search(source)
    if match is None:
        return source, Columns()
    named = dict(parse_qsl(match[1]))
    return source[: match.start()], Columns(named.get("image"), named.get("label"))


def hub_splits(source: str) -> dict[str, Any]:
    """The data set of each split of hf://owner/name or hf://owner/name@config, from the cache where it is there.

    Raises:
        UserError: no id, `datasets` is not installed, the data set is unknown, gated, or needs code to be run.
    """
    match = HUB_ID.fullmatch(source)
    if match is None:
        raise UserError(f"{source}: this is not a hub id; write hf://owner/name or hf://owner/name@config")
    name, config = match.groups()

    def load(datasets: Any) -> Any:
        with _offline_if_out_of_reach(datasets):
            return datasets.load_dataset(name, config)

    return _loaded(source, load)


@contextmanager
def _offline_if_out_of_reach(datasets: Any) -> Iterator[None]:
    """Without a network only the cache is used.

    The hub's own client would try six times over half a minute before that.
    """
    was = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = was or not _within_reach(datasets.config.HF_ENDPOINT)
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = was


def _within_reach(address: str) -> bool:
    """Whether anybody answers there, whatever it says; a connection that breaks off later is left to the download."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:  # of httpx or a successor of it, as the hub's version has it
        return type(error).__name__ not in ("ConnectError", "ConnectTimeout")
    return True


def parquet_splits(files: Mapping[str, list[Path]], source: str) -> dict[str, Any]:
    """The data set of each split from local Parquet files; see `find_parquet`.

    Raises:
        UserError: `datasets` is not installed, or a file is damaged.
    """
    found: dict[str, Any] = {}
    for split, paths in files.items():
        # Each split alone: together they would all be cast to the first one's classes.
        named = {split: [str(path) for path in paths]}
        found |= _loaded(source, _parquet_loader(named))
    return found


def _parquet_loader(named: dict[str, list[str]]) -> Callable[[Any], Any]:
    return lambda datasets: datasets.load_dataset("parquet", data_files=named)


def find_parquet(path: Path) -> dict[str, list[Path]]:
    """The Parquet files that a file or a folder holds, by split; {} where there are none.

    They lie in the folder itself, in data/, or in a folder named as the split (train/0.parquet). A file's split is
    how its name begins (train-00000-of-00004.parquet). Files of which none names a split are all "train". A path that
    ends in .parquet may hold `*` and `?`.

    Raises:
        UserError: it ends in .parquet, and there is no such file.
    """
    if path.suffix == ".parquet":
        files = sorted(path.parent.glob(path.name))
        if not files:
            raise UserError(f"{path}: there is no such Parquet file; check the path")
        return _by_split(files, path.parent)
    folders = (path, path / "data", *(path / name for names in SPLIT_NAMES.values() for name in names))
    return _by_split(sorted({file for folder in folders for file in folder.glob("*.parquet")}), path)


def _by_split(files: list[Path], root: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in files:
        split = _split_of(file.name) or (None if file.parent == root else _split_of(file.parent.name))
        if split is not None:
            found.setdefault(split, []).append(file)
    return found or ({"train": files} if files else {})


def _split_of(name: str) -> str | None:
    start = re.split(r"[-_.]", name.lower())[0]
    return next((split for split, names in SPLIT_NAMES.items() if start in names), None)


def _loaded(source: str, load: Callable[[Any], Any]) -> dict[str, Any]:
    """A `datasets.DatasetDict` as a plain dictionary, or one line."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{source}: Parquet and the hub need `datasets`; `pip install 'vitlab[hub]'`") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        with _quiet(datasets):
            return dict(load(datasets))
    except Exception as error:  # `datasets` and what it calls raise nearly every type
        raise UserError(_reason(source, error)) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Silences what these packages would log next to our one line."""
    from huggingface_hub.utils import logging as of_hub

    logs = (datasets.logging, of_hub)
    levels = [log.get_verbosity() for log in logs]
    for log in logs:
        log.set_verbosity(log.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)


def _reason(source: str, error: Exception) -> str:
    kind, text = type(error).__name__, describe_error(error)
    if kind == "DatasetGenerationError" and error.__cause__ is not None:
        kind, text = type(error.__cause__).__name__, describe_error(error.__cause__)
    if "scripts are no longer supported" in text:
        return f"{source}: it is a script, and code of a data set is never run; look for a Parquet version of it"
    if "Gated" in kind or "gated" in text:
        return f"{source}: access to it is restricted; accept its terms on the hub, then log in with `hf auth login`"
    if isinstance(error, PermissionError) or "Read-only file system" in text:
        return f"{source}: the cache cannot be written ({text}); set HF_HOME to a folder that can"
    if isinstance(error, ConnectionError) or "Offline" in kind:
        return (
            f"{source}: it is not in the local cache, and the hub cannot be reached; go online once, or give a folder"
        )
    if "NotFound" in kind:
        return f"{source}: there is no such data set on the hub, or it is private ({text}); check the name"
    return f"{source}: it cannot be read ({kind}: {text}); check the name, the configuration and the files"


def open_table(
    found: Mapping[str, Any], source: str, columns: Columns, split: TrainOrTest
) -> TableSource | SelectedSource:
    """One side of a table: "train", and the first of validation and test; or a fixed 80 / 20 split of all there is.

    Raises:
        UserError: see `table_source`; or there is no training side, or none to test on.
    """
    sides = {_split_of(name) for name in found}
    if len(found) == 1:
        ((only, dataset),) = found.items()
        whole = table_source(dataset, only, source, columns)
        return select(f"{source} ({split} split)", [(whole, keyed_split(whole, split, TEST_SHARE))])
    if "train" not in sides:
        raise UserError(f"{source}: none of its splits is called train: {', '.join(found)}")
    train = split_source(found, "train", source, columns)
    if split == "train":
        return train
    for side in ("validation", "test"):
        if side in sides:
            return split_source(found, side, source, columns, train.classes)
    raise UserError(f"{source}: there is train but no validation or test among its splits: {', '.join(found)}")


def split_source(
    found: Mapping[str, Any], split: str, source: str, columns: Columns, classes: tuple[str, ...] | None = None
) -> TableSource:
    """One split of a table, not divided further: "train", "validation" or "test", however it is spelled there.

    Raises:
        UserError: see `table_source`; or there is no such split.
    """
    name = split if split in found else next((name for name in found if _split_of(name) == split), None)
    if name is None:
        raise UserError(f"{source}: it has no {split} split, only {', '.join(found)}")
    return table_source(found[name], split, f"{source} ({name} split)", columns, classes)
