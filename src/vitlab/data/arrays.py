"""Images that a program has at hand, in arrays or as a list of paths, as sources."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitlab.data.decoding import as_rgb
from vitlab.data.images import read_file
from vitlab.data.sources import NotInShards, Sample, Source, check_classes, fingerprint
from vitlab.errors import UserError

Pixels = Callable[[int], NDArray[np.uint8]]  # index -> (height, width) or (height, width, 3)


@dataclass(frozen=True, eq=False)
class ArraySource(NotInShards):
    """Images from arrays in memory or in mapped files; see `sources.Source`. Keys are `prefix` and the number."""

    prefix: str
    pixels: Pixels
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The image's number behind the prefix; see `sources.Source.key`."""
        return f"{self.prefix}{index}"

    def read(self, index: int) -> Sample:
        """The pixels of the image at `index`; see `sources.Source.read`."""
        return Sample(as_rgb(self.pixels(index)), int(self.labels_N[index]), f"{self.name} image {index}")


@dataclass(frozen=True, eq=False)
class PathsSource(NotInShards):
    """Image files at any paths; see `sources.Source`."""

    paths: tuple[Path, ...]
    skipped: tuple[str, ...] = ()

    def key(self, index: int) -> str:
        """The path."""
        return str(self.paths[index])

    def read(self, index: int) -> Sample:
        """The file's bytes; see `sources.Source.read`."""
        path = self.paths[index]
        return Sample(read_file(path), int(self.labels_N[index]), str(path))


def array_source(
    name: str, prefix: str, classes: Sequence[str], labels_N: NDArray[np.int64], size: int, pixels: Pixels
) -> ArraySource:
    """A source from arrays.

    Args:
        name: what it is called.
        prefix: what its keys begin with, such as "train/".
        classes: names by label.
        labels_N: (N,) labels.
        size: values per image, for the fingerprint.
        pixels: returns an image by its index.

    Raises:
        UserError: a label outside the classes; fewer than two classes, no image.
    """
    check_classes(name, classes)
    if len(labels_N) == 0:
        raise UserError(f"{name}: there is no image in it")
    wrong_N = (labels_N < 0) | (labels_N >= len(classes))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise UserError(f"{name}: image {row} has the label {labels_N[row]}; labels are 0 to {len(classes) - 1}")
    rows = ((f"{prefix}{row}", size, label) for row, label in enumerate(labels_N.tolist()))
    return ArraySource(name, tuple(classes), labels_N, fingerprint(classes, rows), prefix, pixels)


def count(images: Any) -> int:
    """How many images there are."""
    return len(images) if isinstance(images, Sequence) else len(np.asarray(images))


def source_of(images: Any, classes: Sequence[str], labels_N: NDArray[np.int64]) -> Source:
    """Images in any of the forms that `vitlab.estimator` accepts, as a source.

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
        return PathsSource("the files", tuple(classes), labels_N, fingerprint(classes, rows), paths)
    pixels_N = _pixels(np.asarray(images))
    return array_source("the array", "images/", classes, labels_N, pixels_N[0].size, lambda index: pixels_N[index])


def _are_paths(images: Any) -> bool:
    first = images[0] if isinstance(images, Sequence) else np.asarray(images).reshape(-1)[0]
    return isinstance(first, str | Path)


def _pixels(images: NDArray[Any]) -> NDArray[np.uint8]:
    """An array of images as bytes.

    Raises:
        UserError: axes or values that are not those of images.
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
