"""What the search for duplicates needs of each image: digests, a hash and a small picture, kept block by block.

A data set is cut into blocks of fixed size, whatever the number of processes that share the work. Each block is a
file of its own, written completely or not at all, so that work that was stopped continues where it was.
"""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitlab.data.assembly import default_workers
from vitlab.data.images import decode
from vitlab.data.sources import Bad, Source
from vitlab.dedup.perceptual import SIDE, hashes, thumbnail
from vitlab.errors import UserError
from vitlab.files import write_bytes

VERSION = 1  # of what a record means: files of another version are made again
BLOCK = 16_384
RECORD = np.dtype(
    [
        ("file", "<u8", (2,)),  # 128 bits of BLAKE2 over the file's bytes
        ("pixels", "<u8", (2,)),  # the same over the decoded pixels and their shape
        ("hash", "<u8"),
        ("readable", "?"),
        ("thumbnail", "u1", (SIDE, SIDE)),
    ]
)

Signatures = NDArray[np.void]  # (N,) of RECORD; an image that cannot be read is a row of zeros


def blocks(source: Source) -> list[range]:
    """The indices of each block of a source, in order."""
    return [range(start, min(start + BLOCK, len(source))) for start in range(0, len(source), BLOCK)]


def sign_block(
    source: Source, indices: range, folder: Path, *,
    workers: int | None = None, progress: Callable[[int], None] = lambda done: None,
) -> Signatures:  # fmt: skip
    """The records of one block: read from `folder` where they were written before, else made and written there.

    Args:
        source: any.
        indices: one of `blocks(source)`.
        folder: of all sources' blocks; made if missing.
        workers: threads that read and decode; None means one per processor.
        progress: called with the number of images of this block that are done.
    """
    path = folder / f"{source.fingerprint[:32]}-v{VERSION}" / f"{indices.start // BLOCK:06d}.npy"
    kept = _load(path, len(indices))
    if kept is not None:
        progress(len(indices))
        return kept
    records = np.zeros(len(indices), RECORD)
    with ThreadPoolExecutor(workers or default_workers(), thread_name_prefix="vitlab-sign") as pool:
        for row, record in enumerate(pool.map(lambda index: _sign(source, index), indices)):
            if record is not None:
                records[row] = record
            progress(row + 1)
    readable = np.flatnonzero(records["readable"])
    records["hash"][readable] = hashes(records["thumbnail"][readable])
    packed = io.BytesIO()
    np.save(packed, records, allow_pickle=False)
    write_bytes(path, packed.getvalue())
    return records


def check_readable(source: Source, unreadable: list[int], bad_images: Bad) -> None:
    """Refuses images that cannot be read, where that is not allowed; the first is named.

    Raises:
        UserError: there is one, and `bad_images` is "refuse".
    """
    if unreadable and bad_images == "refuse":
        error = why_unreadable(source, unreadable[0])
        more = f" ({len(unreadable):,} images of {source.name} cannot be read)" if len(unreadable) > 1 else ""
        raise UserError(f"{error}{more}, or leave such images out with --bad-images=skip")


def why_unreadable(source: Source, index: int) -> str:
    """What is wrong with an image that could not be read before."""
    try:
        sample = source.read(index)
        decode(sample.data, sample.name)
    except UserError as error:
        return str(error)
    return f"{sample.name}: it could not be read before but can be now; remove the folder of signatures"


def _sign(source: Source, index: int) -> tuple[object, ...] | None:
    """One record, its hash not yet computed; None where the image cannot be read."""
    try:
        sample = source.read(index)
        image_HWC = decode(sample.data, sample.name)
    except UserError:
        return None
    shape = f"{image_HWC.shape[0]} {image_HWC.shape[1]} ".encode()
    pixels = np.ascontiguousarray(image_HWC)
    return _digest(sample.encoded), _digest(shape, pixels.data), 0, True, thumbnail(image_HWC)


def _digest(*pieces: bytes | memoryview) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return np.frombuffer(digest.digest(), "<u8")


def _load(path: Path, length: int) -> Signatures | None:
    """A block that was written before; None where there is no such file, or it is damaged or of another kind."""
    try:
        if path.stat().st_size > length * RECORD.itemsize + 65_536:
            return None
        records: Signatures = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return records if records.dtype == RECORD and records.shape == (length,) else None
