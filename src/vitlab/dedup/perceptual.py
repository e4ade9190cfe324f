"""Small grey pictures of images, and 64-bit hashes of them that stay close when an image is changed a little.

A hash bit is the sign of one low frequency of the picture's cosine transform (the DC term is left out): signs do not
change with brightness and contrast, and mirroring an image flips the bits of the odd horizontal frequencies. Cropping
moves many bits, so a test image is looked up under several hashes, one for each way in which a training image may show
a little more or less of it. Legend: N = images, S = side of a small picture.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab.data.images import RGB

SIDE = 32  # pixels per side of the small picture
BITS = 64
CROP, WIDER = 0.04, 0.05  # how much less or more of an image a variant shows, as a share of its side
BLANK = 2.0  # grey levels: pictures with a smaller standard deviation show nothing to compare

Thumbnails = NDArray[np.uint8]  # (N, SIDE, SIDE)
Floats = NDArray[np.floating[Any]]  # float32, where nothing else is said
Hashes = NDArray[np.uint64]

# Scale and shifts across and down, in half sides: the entire image; at each corner a little less, and a little more.
_CORNERS = tuple((across, down) for across in (-CROP, CROP) for down in (-CROP, CROP))
_VIEWS = ((0.0, 0.0, 0.0), *((-CROP, *corner) for corner in _CORNERS), *((WIDER, *corner) for corner in _CORNERS))
VARIANTS = 2 * len(_VIEWS)  # each view, and its mirror image


def thumbnail(image_HWC: RGB) -> Thumbnails:
    """A SIDE x SIDE grey picture (SIDE, SIDE) of an image of any size, its sides stretched alike or not."""
    grey = Image.fromarray(image_HWC).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def is_blank(thumbnails_NSS: Thumbnails) -> NDArray[np.bool_]:
    """Whether each picture (N, S, S) is too even to be compared by anything but its exact pixels."""
    deviation_N: NDArray[np.float64] = thumbnails_NSS.reshape(len(thumbnails_NSS), -1).std(1)
    return deviation_N < BLANK


def hashes(thumbnails_NSS: Thumbnails | Floats) -> Hashes:
    """The 64-bit hash (N,) of each picture (N, S, S)."""
    return _pack(_frequencies(thumbnails_NSS.astype(np.float32)) > 0)


def variant_hashes(thumbnails_NSS: Thumbnails) -> Hashes:
    """The hashes (N, VARIANTS) under which a duplicate of each picture (N, S, S) may be found.

    Even columns are of the image itself, odd columns of its mirror image.
    """
    pictures_NSS = thumbnails_NSS.astype(np.float32)
    columns = []
    for scale, across, down in _VIEWS:
        rows_SS, columns_SS = _view(scale, down), _view(scale, across)
        coefficients_NB = _frequencies(rows_SS @ pictures_NSS @ columns_SS.T)
        columns += [_pack(coefficients_NB > 0), _pack(coefficients_NB * _MIRROR_B > 0)]
    return np.stack(columns, axis=1)


def cubic(distance: Floats) -> Floats:
    """Keys' cubic kernel with a = -1/2 (IEEE ASSP 29(6), 1981, equation 15) at distances in pixels."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights: Floats = np.where(x < 1, near, np.where(x < 2, far, 0)).astype(np.float32)
    return weights


def centres() -> Floats:
    """Pixel centres (SIDE,) of a picture whose sides go from -1 to 1."""
    places: Floats = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1).astype(np.float32)
    return places


def resampling(scale_N: Floats, shift_N: Floats) -> tuple[Floats, Floats]:
    """Matrices that look along one axis at the places (1 + scale) * x + shift, for x in -1 .. 1.

    Returns:
        (weights_NSS, places_NS): rows are the new pixels; places in pixels of the old picture, whose edge pixels
        are repeated outside.
    """
    places_NS = ((centres() * (1 + scale_N[:, None]) + shift_N[:, None]) + 1) / 2 * SIDE - 0.5
    first_NS = np.floor(places_NS).astype(np.int64)
    weights_NSS = np.zeros((len(scale_N), SIDE, SIDE), np.float32)
    items, rows = np.arange(len(scale_N))[:, None], np.arange(SIDE)
    for offset in (-1, 0, 1, 2):
        taken_NS = first_NS + offset
        weights_NSS[items, rows, np.clip(taken_NS, 0, SIDE - 1)] += cubic(places_NS - taken_NS)
    return weights_NSS, places_NS


def _view(scale: float, shift: float) -> Floats:
    weights_SS: Floats = resampling(np.array([scale], np.float32), np.array([shift], np.float32))[0][0]
    return weights_SS


def _pack(bits_NB: NDArray[np.bool_]) -> Hashes:
    packed: Hashes = np.packbits(bits_NB, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return packed


def _frequencies(pictures_NSS: Floats) -> Floats:
    coefficients_NFF: Floats = _COSINES @ pictures_NSS @ _COSINES.T
    lowest_NB: Floats = np.ascontiguousarray(coefficients_NFF[:, _LOWEST[:, 0], _LOWEST[:, 1]])
    return lowest_NB


def _lowest() -> NDArray[np.int64]:
    """The (row, column) numbers of the 64 lowest frequencies but the mean: by their sum, then by the row."""
    every = sorted(((u, v) for u in range(SIDE) for v in range(SIDE)), key=lambda pair: (sum(pair), pair))
    return np.array(every[1 : BITS + 1])


_LOWEST = _lowest()
_COSINES = np.cos(np.pi * np.outer(np.arange(_LOWEST.max() + 1), np.arange(SIDE) + 0.5) / SIDE).astype(np.float32)
_MIRROR_B = np.where(_LOWEST[:, 1] % 2, -1, 1).astype(np.float32)
