"""Files in object storage or behind a web server, through fsspec: found, and read by ranges."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vitlab.data.decoding import describe_error
from vitlab.errors import UserError

SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http", "file", "memory")
VERSION_FIELDS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL: its size in bytes, and the storage's mark of its version ("" without one)."""

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
        raise UserError(
            f"{url}: it cannot be read ({reason}); check the URL, your permissions, and the network"
        ) from error


def find_file(url: str) -> RemoteFile:
    """Asks the storage for a file's size and version.

    Raises:
        UserError: there is no such file, its size is unknown, or the storage cannot be reached.
    """
    system, path = _system(url)
    info = _asked(url, lambda: system.info(path))
    if info.get("type") == "directory":
        raise UserError(f"{url}: this is a folder; give its shards, such as {url.rstrip('/')}/train-{{000..010}}.tar")
    size = info.get("size")
    if not isinstance(size, int):
        raise UserError(f"{url}: the server does not report the file's size, so it cannot be read by ranges; copy it")
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


def read_if_there(url: str, most: int) -> bytes | None:
    """A file's bytes; None where there is none.

    Raises:
        UserError: the storage cannot be reached, or the file has more than `most` bytes.
    """
    system, path = _system(url)
    if not _asked(url, lambda: system.exists(path)):
        return None
    found = find_file(url)
    if found.size > most:
        raise UserError(f"{url}: this index is larger than 1 GiB; remove it, and it is made again")
    return found.read_range(0, found.size)
