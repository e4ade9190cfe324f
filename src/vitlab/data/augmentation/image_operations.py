"""RandAugment's operations on uint8 images as TensorFlow computes them; single values go by `point_tables`."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitlab.data.augmentation import point_tables
from vitlab.data.images import RGB

GREY = 128  # what stands where an image was moved away or cut out
# Grey of (r, g, b): TensorFlow's weights times its 255.5 / 255, as the one fraction (2989 r + ...) 511 / 5,100,000.
GREY_WEIGHTS = (2989 * 511, 5870 * 511, 1140 * 511)
GREY_DIVISOR = 5_100_000
BLOCK_VALUES = 50_000
JUST_BELOW_HALF = np.nextafter(np.float32(0.5), np.float32(0))


def look_up(image_HWC: RGB, table: point_tables.Table) -> RGB:
    """Each value's entry in the table."""
    changed = image_HWC.tobytes().translate(table.tobytes())
    return np.frombuffer(changed, np.uint8).reshape(image_HWC.shape)


def solarize(image_HWC: RGB, threshold: int) -> RGB:
    """`point_tables.solarize`, without a table and ten times as fast: exclusive or with 255 from the threshold on."""
    from_there_HWC = (image_HWC >= np.uint8(threshold % 256)).view(np.uint8)
    np.negative(from_there_HWC, out=from_there_HWC)
    from_there_HWC ^= image_HWC
    return from_there_HWC


def autocontrast(image_HWC: RGB) -> RGB:
    """Stretches each channel to 0 .. 255."""
    # Over rows first: numpy is sixty times slower where the axis that stays is the innermost, of 3.
    lowest_C = image_HWC.min(axis=0).min(axis=0).tolist()
    highest_C = image_HWC.max(axis=0).max(axis=0).tolist()
    return _look_up_by_channel(
        Image.fromarray(image_HWC),
        [point_tables.autocontrast(low, high) for low, high in zip(lowest_C, highest_C, strict=True)],
    )


def equalize(image_HWC: RGB) -> RGB:
    """Spreads each channel's histogram evenly."""
    image = Image.fromarray(image_HWC)
    counts_CV = np.array(image.histogram()).reshape(3, 256)
    return _look_up_by_channel(image, [point_tables.equalize(counts_V) for counts_V in counts_CV])


def _look_up_by_channel(image: Image.Image, tables: list[point_tables.Table]) -> RGB:
    return np.asarray(image.point(np.concatenate(tables).tolist()))


def colour(image_HWC: RGB, factor: float) -> RGB:
    """Blends the image's own grey with the image."""
    changed_HWC = np.empty_like(image_HWC)
    for rows in _blocks(image_HWC):
        block_HWC = image_HWC[rows]
        changed_HWC[rows] = point_tables.blend(greyscale(block_HWC), block_HWC, factor)
    return changed_HWC


def greyscale(image_HWC: RGB) -> RGB:
    """TensorFlow's grey in three equal channels: 0.2989 r + 0.5870 g + 0.1140 b, times 255.5 / 255, fraction cut off.

    It is computed in whole numbers and thus exactly; TensorFlow's float32 may be one less or more in rare pixels.
    """
    red_HW, green_HW, blue_HW = (
        image_HWC[..., channel].astype(np.int32) * weight for channel, weight in enumerate(GREY_WEIGHTS)
    )
    grey_HW = ((red_HW + green_HW + blue_HW) // GREY_DIVISOR).astype(np.uint8)
    return np.asarray(Image.fromarray(grey_HW).convert("RGB"))


def sharpness(image_HWC: RGB, factor: float) -> RGB:
    """Blends the smoothed image with the image; the border of one pixel stays."""
    changed_HWC = image_HWC.copy()
    if image_HWC.shape[1] < 3:
        return changed_HWC
    for rows in _blocks(image_HWC[2:]):
        block_HWC = image_HWC[rows.start : rows.stop + 2]
        inner_HWC = block_HWC[1:-1, 1:-1]
        sharpened_HWC = point_tables.blend(smooth(block_HWC), inner_HWC, factor)
        changed_HWC[rows.start + 1 : rows.start + 1 + len(inner_HWC), 1:-1] = sharpened_HWC
    return changed_HWC


def smooth(image_HWC: RGB) -> RGB:
    """Of all but the border: (the sum of the 3 x 3 neighbourhood + 4 times the value itself) / 13, fraction cut off.

    It is computed in whole numbers and thus exactly; TensorFlow's float32 may be one less where 13 divides the sum.
    """
    wide_HWC = image_HWC.astype(np.uint16)
    rows_HWC = wide_HWC[:-2] + wide_HWC[1:-1]
    rows_HWC += wide_HWC[2:]
    sums_HWC = rows_HWC[:, :-2] + rows_HWC[:, 1:-1]
    sums_HWC += rows_HWC[:, 2:]
    sums_HWC += wide_HWC[1:-1, 1:-1] * np.uint16(4)
    sums_HWC //= np.uint16(13)
    return sums_HWC.astype(np.uint8)


def _blocks(image_HWC: RGB) -> Iterator[slice]:
    """Row slices so small that intermediate results fit into memory that the process already holds."""
    rows = max(1, BLOCK_VALUES // max(1, image_HWC[:1].size))
    return (slice(start, start + rows) for start in range(0, len(image_HWC), rows))


def affine(image_HWC: RGB, matrix: NDArray[np.float32]) -> RGB:
    """Moves pixels as TensorFlow's ImageProjectiveTransform does: nearest neighbour, grey outside.

    Halves are rounded away from zero.

    Args:
        image_HWC: uint8 RGB.
        matrix: (6,) as `affine_matrix` gives.
    """
    across, down = float(matrix[2]), float(matrix[5])
    if tuple(matrix[[0, 1, 3, 4]]) == (1, 0, 0, 1) and across.is_integer() and down.is_integer():
        return _shift(image_HWC, int(across), int(down))
    height, width = image_HWC.shape[:2]
    pixels_PC = np.empty((height * width + 1, 3), np.uint8)
    pixels_PC[:-1] = image_HWC.reshape(-1, 3)
    pixels_PC[-1] = GREY
    moved_HWC = np.empty_like(image_HWC)
    for rows in _blocks(image_HWC):
        pixels_PC.take(_sources(matrix, rows, height, width), axis=0, mode="clip", out=moved_HWC[rows])
    return moved_HWC


def _shift(image_HWC: RGB, across: int, down: int) -> RGB:
    """The same for a move by whole pixels: output (x, y) shows input (x + across, y + down)."""
    height, width = image_HWC.shape[:2]
    moved_HWC = np.full_like(image_HWC, GREY)
    seen_HWC = image_HWC[max(down, 0) : max(height + down, 0), max(across, 0) : max(width + across, 0)]
    top, left = max(-down, 0), max(-across, 0)
    moved_HWC[top : top + seen_HWC.shape[0], left : left + seen_HWC.shape[1]] = seen_HWC
    return moved_HWC


def _sources(matrix: NDArray[np.float32], rows: slice, height: int, width: int) -> NDArray[np.int32]:
    """For each output pixel of `rows` the number of the input pixel that it shows; height * width is outside."""
    a, b, c, d, e, f = matrix
    x_W = np.arange(width, dtype=np.float32)
    y_H1 = np.arange(rows.start, min(rows.stop, height), dtype=np.float32)[:, None]
    from_x_HW = a * x_W + b * y_H1
    from_x_HW += c
    from_y_HW = d * x_W + e * y_H1
    from_y_HW += f
    outside_HW = (from_x_HW <= -0.5) | (from_x_HW >= width - 0.5)
    outside_HW |= (from_y_HW <= -0.5) | (from_y_HW >= height - 0.5)
    # Inside, cutting the fraction off v + (just below 0.5) rounds v with halves upwards.
    from_x_HW += JUST_BELOW_HALF
    from_y_HW += JUST_BELOW_HALF
    from_HW: NDArray[np.int32] = from_y_HW.astype(np.int32) * width + from_x_HW.astype(np.int32)
    from_HW[outside_HW] = height * width
    return from_HW
