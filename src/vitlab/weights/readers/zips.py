"""Zip directories, checked before any entry is opened."""

import struct
import zipfile
from pathlib import Path

from vitlab.errors import UserError
from vitlab.weights.readers.tensors import MOST_ARRAYS, shown

ENCRYPTED = 0x1
KNOWN_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def entries_of(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of a zip file.

    Raises:
        UserError: truncated or damaged, two entries of one name (two readers would see two files), encrypted, or
            with more entries than a model has arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
        reason = shown(str(error))
        raise UserError(f"{path}: a truncated or damaged zip archive ({reason}); download it again") from error
    if len(entries) > MOST_ARRAYS:
        raise UserError(f"{path}: holds {len(entries)} entries, no model has more than {MOST_ARRAYS}")
    seen: set[str] = set()
    for entry in entries:
        if entry.filename in seen:
            raise UserError(f"{path}: holds entry '{shown(entry.filename)}' twice; download it again")
        seen.add(entry.filename)
        if entry.flag_bits & ENCRYPTED or entry.compress_type not in KNOWN_COMPRESSIONS:
            raise UserError(f"{path}: entry '{shown(entry.filename)}' is encrypted or of an unknown compression")
    return entries
