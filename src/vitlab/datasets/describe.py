"""What is in a data set: counts, sizes, broken images, and a page of small pictures to look at."""

from typing import Literal, TypedDict, get_args

import numpy as np
from PIL import Image, ImageDraw

from vitlab.data.images import decode
from vitlab.data.sources import Source
from vitlab.errors import UserError

CELL = 72  # pixels per side of a picture on a contact sheet
MARGIN = 6
LABEL_WIDTH = 120


Quantile = Literal["smallest", "five_percent", "median", "ninety_five_percent", "largest"]
QUANTILES: tuple[Quantile, ...] = get_args(Quantile)
# Pixel sizes of the images that were decoded; each (height, width) pair is of quantiles taken side by side.
Sizes = dict[Quantile, tuple[int, int]]


class Description(TypedDict):
    """What `describe` finds; it can be written as JSON."""

    name: str
    fingerprint: str
    images: int
    classes: dict[str, int]
    checked: int
    sizes: Sizes | None
    broken: list[str]


def describe(source: Source, samples: int = 1000) -> Description:
    """Counts a source's images by class, and decodes up to `samples` of them, evenly spread over the source.

    Args:
        source: any.
        samples: how many images to decode at most; `len(source)` checks every image.

    Returns:
        name, fingerprint, number of images, images per class, number decoded, their sizes (None where none can be
        decoded), and the error of each one that is broken.
    """
    counts = np.bincount(source.labels_N, minlength=len(source.classes)).tolist()
    wanted = np.unique(np.linspace(0, len(source) - 1, min(samples, len(source))).round().astype(int)).tolist()
    shapes: list[tuple[int, int]] = []
    broken: list[str] = []
    for index in wanted:
        try:
            sample = source.read(index)
            height, width, _ = decode(sample.data, sample.name).shape
            shapes.append((height, width))
        except UserError as error:
            broken.append(str(error))
    return Description(
        name=source.name,
        fingerprint=source.fingerprint,
        images=len(source),
        classes=dict(zip(source.classes, counts, strict=True)),
        checked=len(wanted),
        sizes=_sizes(shapes),
        broken=broken,
    )


def _sizes(shapes: list[tuple[int, int]]) -> Sizes | None:
    if not shapes:
        return None
    sides = np.quantile(np.array(shapes), (0, 0.05, 0.5, 0.95, 1), axis=0).tolist()
    return {name: (round(height), round(width)) for name, (height, width) in zip(QUANTILES, sides, strict=True)}


def contact_sheet(source: Source, rows: int = 10, columns: int = 12) -> Image.Image:
    """A picture of a source's first images: one class per row, its name at the left.

    An image that cannot be decoded is a crossed cell.

    Args:
        source: any.
        rows: classes to show at most.
        columns: images of each class.
    """
    rows = min(rows, len(source.classes))
    step = CELL + MARGIN
    sheet = Image.new("RGB", (LABEL_WIDTH + columns * step + MARGIN, rows * step + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row in range(rows):
        top = MARGIN + row * step
        draw.text((MARGIN, top + CELL // 2), source.classes[row][:20], fill="black", anchor="lm")
        for column, index in enumerate(np.flatnonzero(source.labels_N == row)[:columns].tolist()):
            left = LABEL_WIDTH + column * step
            paste_sample(sheet, source, index, left, top, CELL)
    return sheet


def paste_sample(sheet: Image.Image, source: Source, index: int, left: int, top: int, side: int) -> None:
    """Puts a sample into a square cell of a sheet; one that cannot be decoded is a crossed cell."""
    try:
        sample = source.read(index)
        picture = fitted(Image.fromarray(decode(sample.data, sample.name)), side)
    except UserError:
        draw = ImageDraw.Draw(sheet)
        draw.line((left, top, left + side, top + side), fill="red", width=2)
        draw.line((left, top + side, left + side, top), fill="red", width=2)
        return
    sheet.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))


def fitted(image: Image.Image, side: int) -> Image.Image:
    """The image with its longer side brought to `side` pixels; small ones are enlarged pixel by pixel."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
