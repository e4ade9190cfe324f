"""Makes the index of a shard: where each image of a tar lies, and its label. It is made once, and kept as JSON."""

import hashlib
import logging
import os
from pathlib import Path
from typing import TypeVar

from vitlab.data.block_cache import Reader
from vitlab.data.decoding import MAX_BYTES, SUFFIXES
from vitlab.errors import UserError
from vitlab.files import write_text
from vitlab.shards.remote import RemoteFile, read_if_there
from vitlab.shards.source import MAX_LABEL, ShardIndex, from_json, index_path, to_json
from vitlab.shards.tar import CutShort, Member, walk

PICKLES = ("pkl", "pickle", "pyd", "pth", "pt")
MAX_INDEX_BYTES = 2**30
CHUNK = 4 * 2**20  # an index is made from reads of this size: a request for each header would take hours

Value = TypeVar("Value")

log = logging.getLogger(__name__)


def index_shard(shard: Path, skipped: list[str] | None = None) -> ShardIndex:
    """A shard's index: the one beside it if it is this shard's, else a new one, kept beside it if possible.

    An index that something was left out of is not kept, so that it is not taken for the complete shard's.

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
        raise UserError(f"{shard}: it cannot be read ({error.strerror}); check the file and its permissions") from error
    if skipped is not None and len(skipped) > before:
        return index
    try:
        write_text(beside, to_json(index))
    except OSError as error:
        log.warning("%s: not kept (%s), so it is made again at every start", beside, error.strerror)
    return index


def cache_folder() -> Path:
    """Where indices of remote shards are kept: $XDG_CACHE_HOME/vitlab/shards, else ~/.cache/vitlab/shards."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "vitlab" / "shards"


def index_remote(file: RemoteFile, skipped: list[str] | None = None) -> ShardIndex:
    """A remote shard's index: the cached one, else the one beside it, else a new one from reading the shard once.

    The cache's key covers URL, size and version, so a replaced shard is indexed again. A cache that cannot be written
    is reported in a warning.

    Args:
        file: the shard.
        skipped: see `scan`.

    Raises:
        UserError: the shard cannot be read, or is refused by `scan`.
    """
    mark = f"{file.url}\n{file.size}\n{file.version}"
    cached = cache_folder() / f"{hashlib.sha256(mark.encode()).hexdigest()}.index.json"
    try:
        if cached.is_file() and cached.stat().st_size <= MAX_INDEX_BYTES:
            return from_json(cached.read_bytes(), str(cached))
    except OSError as error:
        log.warning("%s: not read (%s)", cached, error.strerror)
    before = 0 if skipped is None else len(skipped)
    index = _beside(file) or scan(read_ahead(file.read_range, file.size), file.size, file.url, skipped=skipped)
    if skipped is None or len(skipped) == before:
        try:
            write_text(cached, to_json(index))
        except OSError as error:
            log.warning("%s: not kept (%s), so %s is indexed at every start", cached, error.strerror, file.url)
    return index


def _beside(file: RemoteFile) -> ShardIndex | None:
    """The index that `vitlab data pack` left beside the shard, where there is one and it is this shard's."""
    url = file.url.removesuffix(".tar") + ".index.json"
    text = read_if_there(url, MAX_INDEX_BYTES)
    index = None if text is None else from_json(text, url)
    return index if index is not None and index.shard_bytes == file.size else None


def read_ahead(read: Reader, total: int, chunk: int = CHUNK) -> Reader:
    """A reader that asks `read` for chunks, and answers small reads in rising order from the last one.

    Args:
        read: gives (offset, size) of the file's bytes.
        total: the file's size in bytes.
        chunk: the smallest request.
    """
    start, held = 0, b""

    def ahead(offset: int, size: int) -> bytes:
        nonlocal start, held
        if not start <= offset <= offset + min(size, max(0, total - offset)) <= start + len(held):
            start, held = offset, read(offset, max(size, chunk))
        return held[offset - start : offset - start + size]

    return ahead


def scan(
    read: Reader, total: int, shard: str, classes: tuple[str, ...] | None = None, skipped: list[str] | None = None
) -> ShardIndex:
    """Indexes a shard in WebDataset's layout: KEY.jpg (or another image suffix) and KEY.cls, its label as text.

    Members with other suffixes and hidden files are ignored.

    Args:
        read: gives (offset, size) of the shard's bytes.
        total: the shard's size in bytes.
        shard: what to call it in an error.
        classes: class names by label, where they are known.
        skipped: None refuses a shard that is cut short and a sample that is incomplete; a list has them left out, and
            one line for each added to it.

    Raises:
        UserError: the archive is refused by `tar.walk`; it holds a pickle, a label that is not a class's
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
    kept = _complete(images, labels, unusable, shard, skipped)
    return ShardIndex(
        shard_bytes=total,
        classes=classes,
        names=tuple(images[key].name for key in kept),
        offsets=tuple(images[key].offset for key in kept),
        sizes=tuple(images[key].size for key in kept),
        labels=tuple(labels[key] for key in kept),
    )


def _complete(
    images: dict[str, Member], labels: dict[str, int], unusable: set[str], shard: str, skipped: list[str] | None
) -> list[str]:
    """The keys of the samples that have an image and a label."""
    lacking = {key: "image" for key in labels if key not in images and key not in unusable}
    lacking |= {key: "label (.cls)" for key in images if key not in labels}
    for key, what in lacking.items():
        _leave_out(UserError(f"{shard}: sample '{key}' has no {what}; was the shard cut short? pack it again"), skipped)
    kept = [key for key in images if key in labels]
    if not kept:
        raise UserError(f"{shard}: there are no samples (KEY.jpg with KEY.cls) in it")
    return kept


def _leave_out(error: UserError, skipped: list[str] | None) -> None:
    if skipped is None:
        raise error
    skipped.append(str(error))


def _take(
    member: Member, read: Reader, shard: str, classes: tuple[str, ...] | None, images: dict[str, Member],
    labels: dict[str, int], unusable: set[str], skipped: list[str] | None,
) -> None:  # fmt: skip
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
