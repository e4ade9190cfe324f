"""Packs a source into tar shards that are read at random: unchanged, or resized once instead of in every epoch."""

import io
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vitlab.data.assembly import default_workers
from vitlab.data.block_cache import Reader
from vitlab.data.decoding import refuse, write_ppm
from vitlab.data.images import RGB, decode
from vitlab.data.sources import Bad, Sample, Source, TrainOrTest
from vitlab.errors import UserError
from vitlab.files import write_bytes, write_text
from vitlab.shards.indexing import scan
from vitlab.shards.source import ShardIndex, index_path, to_json
from vitlab.shards.tar import BLOCK

Encoding = Literal["same", "jpeg", "raw"]

SHARD_SAMPLES = 10_000
SHARD_BYTES = 128 * 2**20  # a shard is built in memory, so that it is written completely or not at all
JPEG_QUALITY = 95
AHEAD = 4  # samples a thread may be ahead of the writer


MAGICS = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"RIFF", "webp"),
    (b"II", "tif"),
    (b"MM", "tif"),
    (b"P6", "ppm"),
)


@dataclass(frozen=True)
class Packed:
    """What `pack` has written.

    Attributes:
        shards: the tar files.
        images: how many images they hold.
        size: their size in bytes.
        skipped: what was wrong with each image that was left out.
    """

    shards: tuple[Path, ...]
    images: int
    size: int
    skipped: tuple[str, ...]


def shorter_side(image_HWC: RGB, side: int) -> RGB:
    """Resizes so that the shorter side is `side` pixels, with antialiasing; a smaller image is not changed."""
    height, width = image_HWC.shape[:2]
    if min(height, width) <= side:
        return image_HWC
    scale = side / min(height, width)
    new = (max(side, round(width * scale)), max(side, round(height * scale)))
    return np.array(Image.fromarray(image_HWC).resize(new, Image.Resampling.BICUBIC, reducing_gap=3.0))


def encoded(sample: Sample, size: int | None, encoding: Encoding) -> Sample:
    """A sample with its image resized and encoded again.

    Args:
        sample: to be packed.
        size: its shorter side in pixels, at most; None leaves the size.
        encoding: "same" keeps the bytes, "jpeg" encodes at quality 95 without subsampling the colours, "raw" writes
            the pixels as a binary PPM.

    Raises:
        UserError: it cannot be decoded.
    """
    if encoding == "same":
        if size is not None:
            raise UserError('the encoding "same" copies images without change: give jpeg or raw to resize them')
        return replace(sample, data=sample.encoded)
    image_HWC = decode(sample.data, sample.name)
    if size is not None:
        image_HWC = shorter_side(image_HWC, size)
    if encoding == "raw":
        return replace(sample, data=write_ppm(image_HWC))
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return replace(sample, data=buffer.getvalue())


def pack(
    source: Source, folder: Path, split: TrainOrTest, *,
    size: int | None = None, encoding: Encoding = "same", shard_samples: int = SHARD_SAMPLES,
    workers: int | None = None, bad_images: Bad = "refuse", progress: Callable[[int], None] = lambda done: None,
) -> Packed:  # fmt: skip
    """Packs one side of a data set into `folder`/SPLIT-00000.tar and so on, each with its index beside it.

    The shards are the same bytes for any number of workers. A folder with both sides packed is itself a source.

    Args:
        source: what to pack.
        folder: made if missing.
        split: which side `source` is; names the shards.
        size: shorter side in pixels to which larger images are resized.
        encoding: see `encoded`.
        shard_samples: at most so many in a shard; fewer where they would exceed 128 MiB.
        workers: threads that read, resize and encode; None means one per processor.
        bad_images: "refuse" ends packing at an image that cannot be read or decoded, "skip" leaves it out.
        progress: called with the number of images done.

    Raises:
        UserError: the folder already holds shards of this side, or an image cannot be read. What was written by this
            call is removed.
    """
    if any(folder.glob(f"{split}-*.tar")):
        raise UserError(f"{folder}: it already holds {split}-*.tar; remove them or name another folder")
    skipped: list[str] = []
    samples = _samples(source, size, encoding, workers, bad_images, skipped)
    images, paths = 0, list[Path]()
    with _removed_on_failure(paths):
        for group in _groups(samples, shard_samples):
            paths.append(folder / f"{split}-{len(paths):05d}.tar")
            _write_shard(paths[-1], group, source.classes)
            images += len(group)
            progress(images + len(skipped))
    if not images:
        raise UserError(f"{source.name}: none of its {len(source):,} images can be read; nothing was packed")
    return Packed(tuple(paths), images, sum(path.stat().st_size for path in paths), tuple(skipped))


@contextmanager
def _removed_on_failure(shards: Sequence[Path]) -> Iterator[None]:
    """Removes shards and their indices where what is inside fails or is interrupted."""
    try:
        yield
    except BaseException:
        for path in shards:
            path.unlink(missing_ok=True)
            index_path(path).unlink(missing_ok=True)
        raise


def _write_shard(path: Path, group: Sequence[tuple[str, Sample]], classes: tuple[str, ...]) -> None:
    content, index = pack_bytes(group, classes)
    write_bytes(path, content)
    write_text(index_path(path), to_json(index))


def _samples(
    source: Source, size: int | None, encoding: Encoding, workers: int | None, bad_images: Bad, skipped: list[str]
) -> Iterator[tuple[str, Sample]]:
    """Every sample with its key, in order; threads work ahead."""

    def prepared(index: int) -> Sample:
        sample = source.read(index)
        return encoded(sample, size, encoding)

    threads = default_workers() if workers is None else max(1, workers)
    waiting: deque[Future[Sample]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="vitlab-pack") as pool:
        try:
            for index in range(len(source)):
                while len(waiting) < AHEAD * threads and index + len(waiting) < len(source):
                    waiting.append(pool.submit(prepared, index + len(waiting)))
                try:
                    yield f"{index:08d}", waiting.popleft().result()
                except UserError as error:
                    if bad_images == "refuse":
                        raise
                    skipped.append(str(error))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _groups(samples: Iterator[tuple[str, Sample]], shard_samples: int) -> Iterator[list[tuple[str, Sample]]]:
    group: list[tuple[str, Sample]] = []
    size = 0
    for key, sample in samples:
        if group and (len(group) >= shard_samples or size + len(sample.encoded) > SHARD_BYTES):
            yield group
            group, size = [], 0
        group.append((key, sample))
        size += len(sample.encoded) + 4 * BLOCK
    if group:
        yield group


def tar_bytes(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An uncompressed tar of named files: the same bytes for the same members, whoever packs them and when."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def pack_bytes(samples: Sequence[tuple[str, Sample]], classes: tuple[str, ...]) -> tuple[bytes, ShardIndex]:
    """A shard of keyed samples, in WebDataset's layout, and its index."""
    members = [
        member
        for key, sample in samples
        for member in ((f"{key}.{_suffix(sample)}", sample.encoded), (f"{key}.cls", str(sample.label).encode()))
    ]
    packed = tar_bytes(members)
    return packed, scan(memory_reader(packed), len(packed), "the new shard", classes)


def _suffix(sample: Sample) -> str:
    for magic, suffix in MAGICS:
        if sample.encoded.startswith(magic):
            return suffix
    raise refuse(sample.name, "it is not a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM image")


def memory_reader(content: bytes) -> Reader:
    """A reader of bytes in memory, for `tar.walk` and `indexing.scan`."""

    def read(offset: int, size: int) -> bytes:
        return content[offset : offset + size]

    return read
