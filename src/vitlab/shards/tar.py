"""Walks through an untrusted tar archive: members by offset, nothing extracted, everything odd refused.

Python's `tarfile` ends quietly at a damaged header and, before the fixes of June 2025, could be sent into an
endless loop; shards need little of it, so they are read here: ustar, with GNU's and pax's long names.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vitlab.data.block_cache import Reader
from vitlab.errors import UserError

BLOCK = 512
MAX_NAME = 64 * 1024
FILE_TYPES = (b"0", b"\0", b"7")
REFUSED_TYPES = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe"}

EXTENSIONS = (b"L", b"x", b"g")

_Long = tuple[str | None, int | None]  # name and size that do not fit into the next member's own header


class CutShort(UserError):
    """The archive ends before its end mark; the members before are complete."""


@dataclass(frozen=True)
class Member:
    """One regular file in an archive: its name, where its bytes start, and how many they are."""

    name: str
    offset: int
    size: int


def _number(field: bytes) -> int | None:
    """A numeric header field: octal digits, or GNU's base 256; None if it is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(byte in b"01234567" for byte in digits) else None


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def header_size(header: bytes) -> int | None:
    """The size that a member's header declares, or None if this is not a header with a right checksum."""
    if len(header) != BLOCK:
        return None
    declared, size = _number(header[148:156]), _number(header[124:136])
    actual = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    return size if declared == actual else None


def _pax(body: bytes) -> dict[str, str]:
    """The records (LENGTH KEY=VALUE newline) of a pax header; one that is malformed is named "malformed"."""
    records: dict[str, str] = {}
    while body.strip(b"\0"):
        digits, _, _ = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        key, equals, value = body[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or length > len(body) or body[length - 1 : length] != b"\n":
            return {"malformed": ""}
        records[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        body = body[length:]
    return records


def check_name(name: str, archive: str) -> None:
    """Refuses a member name that is not text, or would lead out of a folder, were it ever extracted."""
    if not name.isprintable():
        raise UserError(f"{archive}: member {name!r} has a name that is not plain UTF-8; pack it again")
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise UserError(f"{archive}: member {name!r} leads out of the archive; do not trust this shard")


def walk(read: Reader, total: int, archive: str) -> Iterator[Member]:
    """The regular files of an archive, in order.

    Args:
        read: gives (offset, size) of the archive's bytes.
        total: the archive's size in bytes.
        archive: what to call it in an error.

    Raises:
        CutShort: it ends too early; the members before are complete and have been yielded.
        UserError: damaged, followed by more data, or holding links, devices, sparse files or names
            that lead out of it.
    """
    position = 0
    long: _Long = (None, None)
    while (header := read(position, BLOCK)) != bytes(BLOCK):
        kind, start = header[156:157], position + BLOCK
        size = _member_size(header, long, position, total, archive)
        if kind in EXTENSIONS:
            long = _extended(read, start, size, kind, long, archive)
        else:
            name = _name(header, long[0])
            check_name(name, archive)
            if kind in FILE_TYPES:
                yield Member(name, start, size)
            elif kind != b"5":
                what = REFUSED_TYPES.get(kind, f"of the unknown type {kind!r}")
                raise UserError(f"{archive}: member {name!r} is {what}; shards hold plain files only")
            long = (None, None)
        position = start + -(-size // BLOCK) * BLOCK
    _check_tail(read, position, total, archive)


def _member_size(header: bytes, long: _Long, position: int, total: int, archive: str) -> int:
    """How many bytes the member has whose header lies at `position`; it must end within the archive."""
    size = header_size(header)
    if len(header) < BLOCK:
        raise CutShort(f"{archive}: it is cut short: there is no end mark at byte {position:,}; copy it again")
    if size is None:
        raise UserError(f"{archive}: it is damaged: no member starts at byte {position:,}; copy it again")
    if header[156:157] in FILE_TYPES and long[1] is not None:
        size = long[1]
    stop = position + BLOCK + size
    if stop > total:
        raise CutShort(
            f"{archive}: it is cut short: member {_name(header, long[0])!r} ends at byte {stop:,}, "
            f"the archive at {total:,}; copy it again"
        )
    return size


def _name(header: bytes, long_name: str | None) -> str:
    if long_name is not None:
        return long_name
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _extended(read: Reader, start: int, size: int, kind: bytes, long: _Long, archive: str) -> _Long:
    """The name and size that an extension header gives to the member after it."""
    if size > MAX_NAME:
        raise UserError(f"{archive}: an extended header of {size:,} bytes at byte {start:,}; do not trust this shard")
    body = read(start, size)
    if kind == b"L":
        return _text(body), long[1]
    if kind == b"g":
        return long
    records = _pax(body)
    length = records.get("size")
    sparse = any(key.startswith("GNU.sparse") for key in records)
    if "malformed" in records or sparse or (length is not None and not (length.isdecimal() and len(length) < 16)):
        raise UserError(f"{archive}: the extended header at byte {start:,} is malformed or sparse; pack it again")
    return records.get("path", long[0]), long[1] if length is None else int(length)


def _check_tail(read: Reader, position: int, total: int, archive: str) -> None:
    """After the end mark there may be zeros only: a second archive would silently be lost."""
    while position < total:
        block = read(position, 2**20)
        if not block or block.strip(b"\0"):
            raise UserError(f"{archive}: there is more data after its end mark at byte {position}; pack it again")
        position += len(block)
