"""Tar shards in object storage or behind a web server, through fsspec: indexed once, then read by ranges."""

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab.data.block_cache import Reader
from vitlab.data.decoding.pillow import describe_error
from vitlab.errors import UserError
from vitlab.files import write_text
from vitlab.shards.index import MAX_INDEX_BYTES, ShardIndex, from_json, scan, to_json

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http", "file", "memory")
CHUNK = 4 * 2**20  # an index is made from reads of this size: a request for each header would take hours
VERSION_FIELDS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL: its size in bytes, and the storage's mark of its version ("" where it gives none)."""

    url: str
    size: int
    version: str

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer at the end.

        Raises:
            UserError: the storage cannot be reached or refuses.
        """
        stop = min(offset + size, self.size)
        if stop <= offset:
            return b""
        system, path = _system(self.url)
        return bytes(_asked(self.url, lambda: system.cat_file(path, start=offset, end=stop)))


def is_url(source: str) -> bool:
    """Whether `source` is written as a URL of one of the storages that shards are read from."""
    scheme, found, _ = source.partition("://")
    return bool(found) and scheme in SCHEMES


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL (one object for each storage, kept by fsspec) and the path inside it."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        raise UserError(f"{url}: shards are not read from {scheme}://; use one of {', '.join(SCHEMES)}")
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"{url}: URLs need fsspec; install it with `pip install 'vitlab[hub]'`") from error
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:  # fsspec's message names the driver, such as s3fs
        raise UserError(f"{url}: {scheme}:// needs a driver: {describe_error(error)}") from error
    except Exception as error:  # drivers connect here, and raise nearly every type
        raise UserError(f"{url}: it cannot be opened ({describe_error(error)}); check the URL") from error
    return system, path


def _asked(url: str, question: Callable[[], Any]) -> Any:
    """The storage's answer, or one line."""
    try:
        return question()
    except FileNotFoundError as error:
        raise UserError(f"{url}: there is no such file; check the URL") from error
    except Exception as error:  # drivers raise nearly every type
        reason = f"{type(error).__name__}: {describe_error(error)}"
        raise UserError(f"{url}: it cannot be read ({reason}); check the URL, your rights, and the network") from error


def find_file(url: str) -> RemoteFile:
    """Asks the storage for a file's size and version.

    Raises:
        UserError: there is no such file, its size is not told, or the storage cannot be reached.
    """
    system, path = _system(url)
    info = _asked(url, lambda: system.info(path))
    if info.get("type") == "directory":
        raise UserError(f"{url}: this is a folder; give its shards, such as {url.rstrip('/')}/train-{{000..010}}.tar")
    size = info.get("size")
    if not isinstance(size, int):
        raise UserError(f"{url}: the server does not tell the file's size, so it cannot be read by ranges; copy it")
    version = next((str(info[field]) for field in VERSION_FIELDS if info.get(field)), "")
    return RemoteFile(url, size, version)


def find_matching(pattern: str) -> list[str]:
    """The URLs of the files that match `*` and `?` in a pattern, sorted; [] where the storage lists none.

    Raises:
        UserError: the storage cannot be reached.
    """
    system, path = _system(pattern)
    found = _asked(pattern, lambda: system.glob(path))
    return sorted(str(system.unstrip_protocol(name)) for name in found)


def cache_folder() -> Path:
    """Where indices of remote shards are kept: $XDG_CACHE_HOME/vitlab/shards, else ~/.cache/vitlab/shards."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "vitlab" / "shards"


def index_remote(file: RemoteFile, skipped: list[str] | None = None) -> ShardIndex:
    """A remote shard's index: the cached one, else the one beside it, else a new one from reading the shard once.

    The cache's key covers URL, size and version, so a replaced shard is indexed anew. A cache that cannot be written
    costs a warning.

    Args:
        file: the shard.
        skipped: see `index.scan`.

    Raises:
        UserError: the shard cannot be read, or is refused by `index.scan`.
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
    system, path = _system(url)
    if not _asked(url, lambda: system.exists(path)):
        return None
    beside = find_file(url)
    if beside.size > MAX_INDEX_BYTES:
        raise UserError(f"{url}: this index is larger than 1 GiB; remove it, and it is made again")
    index = from_json(beside.read_range(0, beside.size), url)
    return index if index.shard_bytes == file.size else None


def read_ahead(read: Reader, total: int, chunk: int = CHUNK) -> Reader:
    """A reader that asks `read` for whole chunks, and answers small reads in rising order from the last one.

    Args:
        read: gives (offset, size) of the file's bytes.
        total: the file's size in bytes.
        chunk: the least that is asked for.
    """
    start, held = 0, b""

    def ahead(offset: int, size: int) -> bytes:
        nonlocal start, held
        if not start <= offset <= offset + min(size, max(0, total - offset)) <= start + len(held):
            start, held = offset, read(offset, max(size, chunk))
        return held[offset - start : offset - start + size]

    return ahead
