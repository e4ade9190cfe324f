"""Operations on single values as tables of 256 entries: RandAugment's, in TensorFlow's arithmetic.

TensorFlow's own code of RandAugment (the EfficientNet of its TPU models, and big_vision's copy, with which AugReg was
trained) works on uint8 and turns float32 results into uint8 by cutting the fraction off; so do these.
"""

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.uint8]  # (256,): value -> value
Bytes = NDArray[np.uint8]

VALUES: Table = np.arange(256, dtype=np.uint8)
VALUES.setflags(write=False)
BITS = 8
SOLARIZE_ADD_BELOW = 128


def blend(degenerate: Bytes, image: Bytes, factor: float) -> Bytes:
    """Gives degenerate + factor * (image - degenerate) in float32, within 0 .. 255, the fraction cut off."""
    start = degenerate.astype(np.float32)
    blended = image.astype(np.float32)
    blended -= start
    blended *= np.float32(factor)
    blended += start
    np.clip(blended, 0, 255, out=blended)
    return blended.astype(np.uint8)


def invert() -> Table:
    """Gives 255 - v."""
    return VALUES[::-1]


def posterize(bits: int) -> Table:
    """The `bits` highest bits of v; the rest are zero.

    TensorFlow shifts right and left by 8 - bits, and its shift goes 7 places at most: no bits keep one nevertheless.
    More than 8 bits, which magnitudes above 20 ask for, change nothing.
    """
    shift = min(max(BITS - bits, 0), BITS - 1)
    return VALUES & np.uint8(0xFF << shift & 0xFF)


def solarize(threshold: int) -> Table:
    """Keeps v below the threshold, gives 255 - v from there on. The threshold is taken modulo 256.

    TensorFlow compares in uint8, in which 256 is 0: magnitudes 10 and 20 invert every value, and 15 has the
    threshold 128. That is what the published models saw, so it is kept.
    """
    return np.concatenate((VALUES[: threshold % 256], 255 - VALUES[threshold % 256 :]))


def solarize_add(addition: int) -> Table:
    """Gives v + addition, at most 255, for v below 128; others stay."""
    added = np.minimum(VALUES.astype(np.int64) + addition, 255).astype(np.uint8)
    return np.where(VALUES < SOLARIZE_ADD_BELOW, added, VALUES)


def brightness(factor: float) -> Table:
    """A blend with black."""
    return blend(np.zeros_like(VALUES), VALUES, factor)


def contrast(factor: float, pixels: int) -> Table:
    """A blend with one grey for the entire image: the number of its pixels / 256, at most 255.

    Pillow takes the mean grey. TensorFlow's code sums the histogram where it means to average with it, which gives
    the number of pixels: 196 for every image of 224 x 224. That is what the published models saw, so it is kept.
    """
    grey = min(pixels // 256, 255)
    return blend(np.full_like(VALUES, grey), VALUES, factor)


def autocontrast(lowest: int, highest: int) -> Table:
    """A line through (lowest, 0) and (highest, 255), in float32; nothing changes where they are equal."""
    if highest <= lowest:
        return VALUES
    scale = np.float32(255) / np.float32(highest - lowest)
    offset = np.float32(-lowest) * scale
    line: Table = np.clip(VALUES.astype(np.float32) * scale + offset, 0, 255).astype(np.uint8)
    return line


def equalize(counts: NDArray[np.int64]) -> Table:
    """Spreads a histogram of 256 counts evenly, in whole numbers, as Pillow does.

    With step = (sum - count of the highest value present) // 255, v becomes (step // 2 + number of values below v)
    // step; nothing changes where step is 0.
    """
    present = np.flatnonzero(counts)
    step = (int(counts.sum()) - int(counts[present[-1]])) // 255 if present.size else 0
    if step == 0:
        return VALUES
    below = np.cumsum(counts) - counts
    equalized: Table = np.minimum((below + step // 2) // step, 255).astype(np.uint8)
    return equalized
