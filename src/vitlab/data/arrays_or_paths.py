"""Images as a program has them at hand, in an array or as a list of paths, as a source; for `vitlab.estimator`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.arrays import array_source
from vitlab.data.images import read_file
from vitlab.data.sources import NotInShards, Sample, Source, check_classes, fingerprint
from vitlab.errors import UserError


@dataclass(frozen=True, eq=False)
class _Files(NotInShards):
    """Image files as a source; see `vitlab.data.sources.Source`."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    paths: tuple[Path, ...]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def key(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def read(self, index: int) -> Sample:
        """The file's bytes; see `sources.Source.read`."""
        path = self.paths[index]
        return Sample(read_file(path), int(self.labels_N[index]), str(path))


def count(images: Any) -> int:
    """How many images there are."""
    return len(images) if isinstance(images, Sequence) else len(np.asarray(images))


def source_of(images: Any, classes: Sequence[str], labels_N: NDArray[np.int64]) -> Source:
    """Images in any of the forms that are taken, as a source.

    Args:
        images: an array (images, height, width) or (images, height, width, 3), bytes or floats from 0 to 1, or a list
            of paths of image files.
        classes: names by label.
        labels_N: (N,) labels.

    Raises:
        UserError: another form, or not as many labels as images.
    """
    given = count(images)
    if given != len(labels_N):
        raise UserError(f"{given} images and {len(labels_N)} labels: give a label for each image")
    if given == 0:
        raise UserError("no images: give at least one; found array with 0 sample(s)")
    if _are_paths(images):
        check_classes("y", classes)
        paths = tuple(Path(str(path)) for path in images)
        rows = ((str(path), 0, label) for path, label in zip(paths, labels_N.tolist(), strict=True))
        return _Files("the files", tuple(classes), labels_N, fingerprint(classes, rows), paths)
    pixels_N = _pixels(np.asarray(images))
    return array_source("the array", "images", classes, labels_N, pixels_N[0].size, lambda index: pixels_N[index])


def _are_paths(images: Any) -> bool:
    first = images[0] if isinstance(images, Sequence) else np.asarray(images).reshape(-1)[0]
    return isinstance(first, str | Path)


def _pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """An array of images as bytes.

    Raises:
        UserError: axes or values that are no images.
    """
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3) or 0 in images.shape:
        raise UserError(
            f"X has the shape {images.shape}: give images as (images, height, width) or (images, height, width, 3), or "
            "a list of paths. Reshape your data; a table of features is no image"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "bfiu":
        raise UserError(f"X has values of type {images.dtype}: give bytes from 0 to 255, or floats from 0 to 1")
    most = 255 if images.dtype.kind in "iu" else 1
    least_found, most_found = images.min(), images.max()
    if not 0 <= least_found <= most_found <= most:  # also where one is not a number: NaN and infinity are refused
        raise UserError(
            f"X has values from {least_found} to {most_found}: give bytes from 0 to 255, or floats from 0 to 1 "
            "(no NaN, no inf)"
        )
    scaled_N: NDArray[np.uint8] = np.round(images * (255 // most)).astype(np.uint8)
    return scaled_N
