"""Images that lie in arrays, as sources: each is handed out as a binary PPM, which costs a copy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitlab.data.decoding.ppm import as_rgb, write_ppm
from vitlab.data.sources import NotInShards, Sample, check_classes, fingerprint
from vitlab.errors import UserError

Pixels = Callable[[int], NDArray[np.uint8]]  # index -> (height, width) or (height, width, 3)


@dataclass(frozen=True, eq=False)
class ArraySource(NotInShards):
    """Images from arrays in memory or in mapped files; see `sources.Source`. Keys are `prefix`/INDEX."""

    name: str
    classes: tuple[str, ...]
    labels_N: NDArray[np.int64]
    fingerprint: str
    prefix: str
    pixels: Pixels
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def key(self, index: int) -> str:
        """The image's number behind its split's name; see `sources.Source.key`."""
        return f"{self.prefix}/{index}"

    def read(self, index: int) -> Sample:
        """The image at `index` as a binary PPM; see `sources.Source.read`."""
        image = self.pixels(index)
        return Sample(write_ppm(as_rgb(image)), int(self.labels_N[index]), f"{self.name} image {index}")


def array_source(
    name: str, prefix: str, classes: Sequence[str], labels_N: NDArray[np.int64], size: int, pixels: Pixels
) -> ArraySource:
    """A source from arrays.

    Args:
        name: what it is called.
        prefix: its split.
        classes: names by label.
        labels_N: (N,) labels.
        size: values an image, for the fingerprint.
        pixels: gives an image by index.

    Raises:
        UserError: a label that is none of the classes; fewer than two classes, no image.
    """
    check_classes(name, classes)
    if len(labels_N) == 0:
        raise UserError(f"{name}: there is no image in it")
    wrong_N = (labels_N < 0) | (labels_N >= len(classes))
    if wrong_N.any():
        row = int(wrong_N.argmax())
        raise UserError(f"{name}: image {row} has the label {labels_N[row]}; labels are 0 to {len(classes) - 1}")
    rows = ((f"{prefix}/{row}", size, label) for row, label in enumerate(labels_N.tolist()))
    return ArraySource(name, tuple(classes), labels_N, fingerprint(classes, rows), prefix, pixels)
