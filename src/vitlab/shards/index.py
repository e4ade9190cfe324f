"""A shard's index: where each image of a tar lies, and its label; made once, kept as JSON beside the tar."""

import logging
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from vitlab.data.block_cache import Reader
from vitlab.data.decoding.pillow import MAX_BYTES, SUFFIXES
from vitlab.errors import UserError
from vitlab.files import write_text
from vitlab.shards.tar import BLOCK, CutShort, Member, walk

PICKLES = ("pkl", "pickle", "pyd", "pth", "pt")
MAX_LABEL = 10**7
MAX_INDEX_BYTES = 2**30

Value = TypeVar("Value")

log = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class ShardIndex:
    """The images of one shard, in the archive's order.

    Attributes:
        shard_bytes: the tar's size; another size means that the index is not this tar's.
        classes: class names by label, or None where the shard came from elsewhere and names none.
        names: each image's member name.
        offsets, sizes: where its bytes start in the tar, and how many they are.
        labels: its class.
    """

    shard_bytes: int
    classes: tuple[str, ...] | None
    names: tuple[str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    labels: tuple[int, ...]
    format: Literal["vitlab-shard-index"] = "vitlab-shard-index"
    version: Literal[1] = 1


_ADAPTER = TypeAdapter(ShardIndex)


def index_path(shard: Path) -> Path:
    """Where a shard's index lies: `train-000.tar` has `train-000.index.json`."""
    return shard.with_suffix(".index.json")


def to_json(index: ShardIndex) -> str:
    """The index as one line of JSON."""
    return _ADAPTER.dump_json(index).decode() + "\n"


def from_json(text: bytes, name: str) -> ShardIndex:
    """An index from untrusted JSON.

    Raises:
        UserError: it is damaged or of another version.
    """
    try:
        index = _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise UserError(f"{name}: this is no shard index of version 1; remove it, and it is made again") from error
    count = len(index.names)
    limits = all(
        BLOCK <= offset <= index.shard_bytes - size and 0 < size <= MAX_BYTES
        for offset, size in zip(index.offsets, index.sizes, strict=False)
    )
    known = MAX_LABEL if index.classes is None else len(index.classes)
    labels = all(0 <= label < known for label in index.labels)
    if not (0 < count == len(index.offsets) == len(index.sizes) == len(index.labels) and limits and labels):
        raise UserError(f"{name}: this shard index contradicts itself; remove it, and it is made again")
    return index


def index_shard(shard: Path, skipped: list[str] | None = None) -> ShardIndex:
    """A shard's index: the one beside it if it is this shard's, else a new one, kept beside it if possible.

    An index that something was left out of is not kept, so that nobody takes it for the whole shard's.

    Args:
        shard: the tar file.
        skipped: see `scan`.

    Raises:
        UserError: the shard or its index cannot be read, or is refused by `scan`.
    """
    beside = index_path(shard)
    try:
        total = shard.stat().st_size
        if beside.exists():
            if beside.stat().st_size > MAX_INDEX_BYTES:
                raise UserError(f"{beside}: this index is larger than 1 GiB; remove it, and it is made again")
            index = from_json(beside.read_bytes(), str(beside))
            if index.shard_bytes == total:
                return index
            log.warning("%s: made again, because it belongs to a shard of another size", beside)
        with shard.open("rb") as file:

            def read(offset: int, size: int) -> bytes:
                file.seek(offset)
                return file.read(size)

            before = 0 if skipped is None else len(skipped)
            index = scan(read, total, str(shard), skipped=skipped)
    except OSError as error:
        raise UserError(f"{shard}: it cannot be read ({error.strerror}); check the file and its rights") from error
    if skipped is not None and len(skipped) > before:
        return index
    try:
        write_text(beside, to_json(index))
    except OSError as error:
        log.warning("%s: not kept (%s), so it is made again at every start", beside, error.strerror)
    return index


def scan(
    read: Reader,
    total: int,
    shard: str,
    classes: tuple[str, ...] | None = None,
    skipped: list[str] | None = None,
) -> ShardIndex:
    """Indexes a shard in WebDataset's layout: KEY.jpg (or another image suffix) and KEY.cls, its label as text.

    Members of other suffixes are passed over; hidden files too.

    Args:
        read: gives (offset, size) of the shard's bytes.
        total: the shard's size in bytes.
        shard: what to call it in an error.
        classes: class names by label, where they are known.
        skipped: None refuses a shard that is cut short and a sample that is incomplete; a list has them left out, and
            one line for each added to it.

    Raises:
        UserError: the archive is refused by `tars.walk`; it holds a pickle, a label that is no class's
            number, or a sample without image or label or with two of one.
    """
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    unusable: set[str] = set()
    try:
        for member in walk(read, total, shard):
            _take(member, read, shard, classes, images, labels, unusable, skipped)
    except CutShort as error:
        _leave_out(error, skipped)
    lacking = {key: "image" for key in labels if key not in images and key not in unusable}
    lacking |= {key: "label (.cls)" for key in images if key not in labels}
    for key, what in lacking.items():
        _leave_out(UserError(f"{shard}: sample '{key}' has no {what}; was the shard cut short? pack it again"), skipped)
    whole = [key for key in images if key in labels]
    if not whole:
        raise UserError(f"{shard}: there are no samples (KEY.jpg with KEY.cls) in it")
    return ShardIndex(
        shard_bytes=total,
        classes=classes,
        names=tuple(images[key].name for key in whole),
        offsets=tuple(images[key].offset for key in whole),
        sizes=tuple(images[key].size for key in whole),
        labels=tuple(labels[key] for key in whole),
    )


def _leave_out(error: UserError, skipped: list[str] | None) -> None:
    if skipped is None:
        raise error
    skipped.append(str(error))


def _take(
    member: Member,
    read: Reader,
    shard: str,
    classes: tuple[str, ...] | None,
    images: dict[str, Member],
    labels: dict[str, int],
    unusable: set[str],
    skipped: list[str] | None,
) -> None:
    """Notes one member as a sample's image, unusable image, or label, or passes it over."""
    folder, slash, base = member.name.rpartition("/")
    stem, _, suffix = base.partition(".")
    key, suffix = folder + slash + stem, suffix.lower()
    if base.startswith("."):
        return
    if suffix.rpartition(".")[2] in PICKLES:
        raise UserError(f"{shard}: sample '{key}' holds a pickle (.{suffix}), which can run code; do not trust it")
    if f".{suffix}" in SUFFIXES:
        if 0 < member.size <= MAX_BYTES:
            _add(images, key, member, shard, "images")
        else:
            reason = f"has an image of {member.size:,} bytes; remove or replace it"
            _leave_out(UserError(f"{shard}: sample '{key}' {reason}"), skipped)
            unusable.add(key)
    elif suffix == "cls":
        label = _label(read(member.offset, min(member.size, 32)), shard, key, classes)
        _add(labels, key, label, shard, "labels")


def _add(found: dict[str, Value], key: str, value: Value, shard: str, what: str) -> None:
    if key in found:
        raise UserError(f"{shard}: sample '{key}' has two {what}; pack it again")
    found[key] = value


def _label(text: bytes, shard: str, key: str, classes: tuple[str, ...] | None) -> int:
    digits = text.strip()
    known = MAX_LABEL if classes is None else len(classes)
    if not (digits.isdigit() and len(digits) < 8 and int(digits) < known):
        shown = text[:20].decode("utf-8", "replace")
        raise UserError(f"{shard}: sample '{key}' has the label {shown!r}; give a class's number, 0 to {known - 1}")
    return int(digits)
