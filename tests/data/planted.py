"""Training sets with planted copies of test images: what the detector of copies is measured with.

Protocol: from a pool of images, some are drawn as test images. The training set is other images of the pool and
changed copies of the test images; the test images themselves are not in it. Every draw is a function of the seed.
Thresholds were chosen on seeds 0 to 5; other seeds are for reporting.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image

from vitlab.data.images import decode
from vitlab.data.sources import NotInShards, Sample, Source, fingerprint
from vitlab.datasets.catalog import open_source
from vitlab.dedup.duplicates import Thresholds
from vitlab.dedup.search import Search, SearchResult, join, read_references, run_blocks

RGB = NDArray[np.uint8]
Change = Callable[[RGB, np.random.Generator], bytes]

# Photos of places, things, an animal, people and textures; no two show the same.
PHOTOS = (
    *("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("ihc.png", "motorcycle_left.png", "rocket.jpg"),
)
TILE_SIDES = (48, 64, 96, 128, 192)
LEAST_CONTRAST = 16  # grey levels: pieces of sky and studio background show nothing to tell them apart by


class MemorySource(NotInShards):
    """Encoded images in memory; see `vitlab.data.sources.Source`."""

    skipped: tuple[str, ...] = ()

    def __init__(self, name: str, encoded: Sequence[bytes]) -> None:
        rows = ((f"{name}/{i}", len(data), 0) for i, data in enumerate(encoded))
        classes = ("one", "two")
        super().__init__(name, classes, np.zeros(len(encoded), np.int64), fingerprint(classes, rows))
        self.encoded = encoded

    def key(self, index: int) -> str:
        return f"{index:05d}"

    def read(self, index: int) -> Sample:
        return Sample(self.encoded[index], 0, f"{self.name} {index}")


def png(image_HWC: RGB) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(image_HWC).save(packed, "PNG", compress_level=1)
    return packed.getvalue()


def jpeg(image_HWC: RGB, quality: int) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(image_HWC).save(packed, "JPEG", quality=quality)
    return packed.getvalue()


def resized(image_HWC: RGB, random: np.random.Generator) -> RGB:
    """At 0.7 to 1.5 of its size."""
    scale = random.uniform(0.7, 1.5)
    size = (round(image_HWC.shape[1] * scale), round(image_HWC.shape[0] * scale))
    return np.array(Image.fromarray(image_HWC).resize(size, Image.Resampling.BILINEAR))


def cropped(image_HWC: RGB, random: np.random.Generator) -> RGB:
    """Without 5 % of its rows and 5 % of its columns, taken from both sides in random shares."""
    height, width = image_HWC.shape[:2]
    rows, columns = round(height * 0.05), round(width * 0.05)
    top, left = int(random.integers(0, rows + 1)), int(random.integers(0, columns + 1))
    return np.ascontiguousarray(image_HWC[top : height - rows + top, left : width - columns + left])


def brightened(image_HWC: RGB, factor: float) -> RGB:
    return np.clip(np.round(image_HWC * factor), 0, 255).astype(np.uint8)


CHANGES: dict[str, Change] = {
    "JPEG quality 30": lambda image, random: jpeg(image, 30),
    "JPEG quality 50": lambda image, random: jpeg(image, 50),
    "resized to 0.7-1.5": lambda image, random: png(resized(image, random)),
    "mirrored": lambda image, random: png(np.ascontiguousarray(image[:, ::-1])),
    "cropped by 5 %": lambda image, random: png(cropped(image, random)),
    "brightness +10 %": lambda image, random: png(brightened(image, 1.1)),
    "brightness -10 %": lambda image, random: png(brightened(image, 0.9)),
}
# Not part of the promise: everything at once.
ALL_AT_ONCE: Change = lambda image, random: jpeg(  # noqa: E731
    brightened(cropped(np.ascontiguousarray(resized(image, random)[:, ::-1]), random), 1.1), 50
)


def fashion_images(name: str) -> list[RGB]:
    """Every image of Fashion-MNIST, training and test split; `name` as the catalogue has it."""
    parts = [open_source(name, "train"), open_source(name, "test")]
    return [decode(part.read(i).data, "image") for part in parts for i in range(len(part))]


@cache
def photo_tiles() -> list[RGB]:
    """Pieces of real photos, five sizes of 48 to 192 pixels; neighbours share at most 45 % of their joint area.

    So no two are copies of each other in the sense of a crop by 5 %.
    """
    paths = [Path(skimage.__file__).parent / "data" / name for name in PHOTOS]
    photos = [
        np.array(Image.open(path).convert("RGB")) for path in paths
    ] + sklearn.datasets.load_sample_images().images
    tiles = []
    for photo in photos:
        grey = photo.mean(2, dtype=np.float32)
        for side in TILE_SIDES:
            step = 3 * side // 8
            for top in range(0, photo.shape[0] - side + 1, step):
                for left in range(0, photo.shape[1] - side + 1, step):
                    window = slice(top, top + side), slice(left, left + side)
                    if grey[window].std() >= LEAST_CONTRAST:
                        tiles.append(np.ascontiguousarray(photo[window]))
    return tiles


@dataclass(frozen=True, eq=False)
class Planted:
    """A training set with copies, and which they are.

    Attributes:
        train, test: the two sets.
        original: for each training image the test image it is a copy of; -1 for other images.
        change: for each training image how it was changed; "" for other images.
    """

    train: MemorySource
    test: MemorySource
    original: NDArray[np.int64]
    change: tuple[str, ...]


def plant(images: Sequence[RGB], seed: int, *, tests: int, others: int, each: bool) -> Planted:
    """Draws test images and others from a pool, and plants copies of the former among the latter.

    Args:
        images: the pool.
        seed: of every draw.
        tests: how many test images.
        others: how many other training images.
        each: one copy of each test image for every change; else one copy, by the changes in turn.
    """
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(images))[: tests + others].tolist()
    assert len(drawn) == tests + others
    names = list(CHANGES)
    rows: list[tuple[bytes, int, str]] = [(png(images[i]), -1, "") for i in drawn[tests:]]
    for number, i in enumerate(drawn[:tests]):
        for name in names if each else [names[number % len(names)]]:
            rows.append((CHANGES[name](images[i], random), number, name))
    shuffled = [rows[i] for i in random.permutation(len(rows)).tolist()]
    return Planted(
        train=MemorySource(f"train {seed} {each}", [data for data, _, _ in shuffled]),
        test=MemorySource(f"test {seed} {each}", [png(images[i]) for i in drawn[:tests]]),
        original=np.array([original for _, original, _ in shuffled]),
        change=tuple(change for _, _, change in shuffled),
    )


def search(train: Source, tests: Sequence[Source], folder: Path, thresholds: Thresholds | None = None) -> SearchResult:
    """What `vitlab dedup` finds by default."""
    request = Search(train, tuple(tests), True, None, thresholds or Thresholds(), folder, workers=1)
    run_blocks(request, read_references(request, lambda done: None), lambda done: None)
    return join(request)


@dataclass(frozen=True)
class Score:
    """How well planted copies were found.

    Attributes:
        recall: share of the copies that were found with their original, of all and by change.
        precision: share of the found pairs that were planted.
        removed_precision: share of the training images found that are copies of any test image.
        false: (training image, test image) of each pair that was not planted.
    """

    recall: float
    by_change: dict[str, float]
    precision: float
    removed_precision: float
    false: list[tuple[int, int]]


def score(planted: Planted, found: SearchResult) -> Score:
    pairs = {(pair.train, pair.test) for pair in found.pairs}
    wanted = {(i, int(original)) for i, original in enumerate(planted.original) if original >= 0}
    by_change = {}
    for name in CHANGES:
        mine = {pair for pair in wanted if planted.change[pair[0]] == name}
        if mine:
            by_change[name] = len(mine & pairs) / len(mine)
    removed = {i for i, _ in pairs}
    return Score(
        recall=len(wanted & pairs) / len(wanted),
        by_change=by_change,
        precision=len(wanted & pairs) / max(1, len(pairs)),
        removed_precision=sum(int(planted.original[i]) >= 0 for i in removed) / max(1, len(removed)),
        false=sorted(pairs - wanted),
    )
