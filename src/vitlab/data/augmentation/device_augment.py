"""The same augmentation as in the workers, for batches on the device that trains.

Draws stay on the host, one generator per sample (`crop_and_draw`, `draw_variation`); here they are applied. Mirroring,
every operation of RandAugment and erasing give the workers' pixels exactly: all arithmetic is in whole numbers, or in
float32 in the same order, one rounding per operation.

Legend: B = images of the batch, N = those of them that one operation concerns, V = 256 values.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitlab.data.augmentation import image_operations, randaugment
from vitlab.data.augmentation.augment import Variation
from vitlab.data.augmentation.randaugment import Operation

Change = Callable[[Tensor, Sequence[Operation]], Tensor]  # (images_NHWC, one operation per image) -> images_NHWC


def vary_batch(images_BHWC: Tensor, variations: Sequence[Variation]) -> Tensor:
    """Mirrors, applies RandAugment, erases: `vitlab.data.augmentation.augment.vary` for a batch.

    Args:
        images_BHWC: uint8 RGB on any device, cropped to the model's input size.
        variations: one per image.

    Returns:
        images_BHWC: new, uint8, on the same device.
    """
    assert len(images_BHWC) == len(variations)
    flips_B = _put(np.array([variation.flip for variation in variations], dtype=bool), images_BHWC.device)
    varied_BHWC = torch.where(flips_B[:, None, None, None], images_BHWC.flip(2), images_BHWC)
    for layer in range(max((len(variation.operations) for variation in variations), default=0)):
        for change, rows in _by_change(variations, layer).items():
            operations = [variations[row].operations[layer] for row in rows]
            rows_N = _put(np.array(rows), images_BHWC.device)
            varied_BHWC[rows_N] = change(varied_BHWC[rows_N], operations)
    return _erase(varied_BHWC, variations)


def _by_change(variations: Sequence[Variation], layer: int) -> dict[Change, list[int]]:
    """The rows of the batch by what their layer asks for."""
    rows_by_change: dict[Change, list[int]] = {}
    for row, variation in enumerate(variations):
        if layer < len(variation.operations):
            change = CHANGES.get(variation.operations[layer].name, _look_up_values)
            rows_by_change.setdefault(change, []).append(row)
    return rows_by_change


def _look_up_values(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    """Invert, Posterize, Solarize, SolarizeAdd, Brightness, Contrast: one table for all channels."""
    pixels = images_NHWC.shape[1] * images_NHWC.shape[2]
    tables = np.stack([randaugment.value_table(operation, pixels) for operation in operations])
    tables_NV = _put(tables, images_NHWC.device)
    return _look_up(images_NHWC, tables_NV[:, None].expand(-1, 3, -1))


def _look_up(images_NHWC: Tensor, tables_NCV: Tensor) -> Tensor:
    """Each value replaced by its entry in the table of its image and channel."""
    values_NCP = images_NHWC.flatten(1, 2).transpose(1, 2).to(torch.int64)
    return tables_NCV.gather(2, values_NCP).transpose(1, 2).reshape(images_NHWC.shape)


def _counts(images_NHWC: Tensor) -> Tensor:
    """Histograms_NCV, int64."""
    channels = len(images_NHWC) * 3
    starts_NC = torch.arange(0, channels * 256, 256, device=images_NHWC.device).view(-1, 1, 1, 3)
    return torch.bincount((images_NHWC + starts_NC).flatten(), minlength=channels * 256).view(-1, 3, 256)


def _autocontrast(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    values_V = torch.arange(256, device=images_NHWC.device)
    lowest_NC1 = images_NHWC.amin((1, 2)).to(torch.float32)[..., None]
    highest_NC1 = images_NHWC.amax((1, 2)).to(torch.float32)[..., None]
    scale_NC1 = torch.full_like(lowest_NC1, 255) / (highest_NC1 - lowest_NC1).clamp_(min=1)
    offset_NC1 = -lowest_NC1 * scale_NC1
    lines_NCV = (values_V * scale_NC1 + offset_NC1).clamp_(0, 255)
    return _look_up(images_NHWC, torch.where(highest_NC1 > lowest_NC1, lines_NCV, values_V).to(torch.uint8))


def _equalize(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    values_V = torch.arange(256, device=images_NHWC.device)
    counts_NCV = _counts(images_NHWC)
    highest_NC1 = images_NHWC.amax((1, 2)).to(torch.int64)[..., None]
    steps_NC1 = (counts_NCV.sum(-1, keepdim=True) - counts_NCV.gather(2, highest_NC1)) // 255
    below_NCV = counts_NCV.cumsum(-1) - counts_NCV
    equalized_NCV = (below_NCV + steps_NC1 // 2) // steps_NC1.clamp(min=1)
    return _look_up(images_NHWC, torch.where(steps_NC1 > 0, equalized_NCV.clamp_(max=255), values_V).to(torch.uint8))


def _colour(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    weights_C = torch.tensor(image_operations.GREY_WEIGHTS, dtype=torch.int32, device=images_NHWC.device)
    weighted_NHWC = images_NHWC * weights_C
    sums_NHW1 = weighted_NHWC[..., :1] + weighted_NHWC[..., 1:2] + weighted_NHWC[..., 2:]
    return _blend(sums_NHW1 // image_operations.GREY_DIVISOR, images_NHWC, operations)


def _sharpness(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    if min(images_NHWC.shape[1:3]) < 3:
        return images_NHWC
    wide_NHWC = images_NHWC.to(torch.int16)
    rows_NHWC = wide_NHWC[:, :-2] + wide_NHWC[:, 1:-1] + wide_NHWC[:, 2:]
    inner_NHWC = wide_NHWC[:, 1:-1, 1:-1]
    sums_NHWC = rows_NHWC[:, :, :-2] + rows_NHWC[:, :, 1:-1] + rows_NHWC[:, :, 2:] + inner_NHWC * 4
    changed_NHWC = images_NHWC.clone()
    changed_NHWC[:, 1:-1, 1:-1] = _blend(sums_NHWC // 13, inner_NHWC, operations)
    return changed_NHWC


def _blend(degenerate_NHWC: Tensor, images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    """`point_tables.blend`: with separate operations, so that no device contracts them to a single rounding."""
    factors = np.array([operation.argument for operation in operations], dtype=np.float32)
    factors_N111 = _put(factors, images_NHWC.device)[:, None, None, None]
    start_NHWC = degenerate_NHWC.to(torch.float32)
    blended_NHWC = (images_NHWC.to(torch.float32) - start_NHWC) * factors_N111
    return (blended_NHWC + start_NHWC).clamp_(0, 255).to(torch.uint8)


def _cutout(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    height, width = images_NHWC.shape[1:3]
    boxes = [randaugment.cutout_box(operation, height, width) for operation in operations]
    inside_NHW1 = _inside(boxes, images_NHWC)[..., None]
    return images_NHWC.masked_fill(inside_NHW1, image_operations.GREY)


def _affine(images_NHWC: Tensor, operations: Sequence[Operation]) -> Tensor:
    height, width = images_NHWC.shape[1:3]
    device = images_NHWC.device
    matrices = np.stack([randaugment.affine_matrix(operation, height, width) for operation in operations])
    a, b, c, d, e, f = _put(matrices, device)[:, :, None, None].unbind(1)
    x_W = torch.arange(width, dtype=torch.float32, device=device)
    y_H1 = torch.arange(height, dtype=torch.float32, device=device)[:, None]
    from_x_NHW = a * x_W + b * y_H1 + c
    from_y_NHW = d * x_W + e * y_H1 + f
    outside_NHW = (from_x_NHW <= -0.5) | (from_x_NHW >= width - 0.5)
    outside_NHW |= (from_y_NHW <= -0.5) | (from_y_NHW >= height - 0.5)
    half = float(image_operations.JUST_BELOW_HALF)
    columns_NHW = (from_x_NHW + half).clamp_(0, width - 1).to(torch.int64)
    rows_NHW = (from_y_NHW + half).clamp_(0, height - 1).to(torch.int64)
    images_N11 = torch.arange(len(images_NHWC), device=device)[:, None, None]
    moved_NHWC = images_NHWC[images_N11, rows_NHW, columns_NHW]
    return moved_NHWC.masked_fill_(outside_NHW[..., None], image_operations.GREY)


def _erase(images_BHWC: Tensor, variations: Sequence[Variation]) -> Tensor:
    """Puts each erasure's noise in its place; all of it travels to the device in one piece."""
    rows = [row for row, variation in enumerate(variations) if variation.erasure is not None]
    if not rows:
        return images_BHWC
    erasures = [variation.erasure for variation in variations if variation.erasure is not None]
    boxes = [
        (erasure.top, erasure.left, erasure.top + erasure.noise_HWC.shape[0], erasure.left + erasure.noise_HWC.shape[1])
        for erasure in erasures
    ]
    rows_N = _put(np.array(rows), images_BHWC.device)
    noise = _put(np.concatenate([erasure.noise_HWC.ravel() for erasure in erasures]), images_BHWC.device)
    inside_NHW1 = _inside(boxes, images_BHWC)[..., None]
    images_BHWC[rows_N] = images_BHWC[rows_N].masked_scatter(inside_NHW1, noise)  # in row-major order, as it was joined
    return images_BHWC


def _inside(boxes: Sequence[tuple[int, int, int, int]], images_NHWC: Tensor) -> Tensor:
    """Mask_NHW of the pixels within each (top, left, bottom, right)."""
    device = images_NHWC.device
    tops_N11, lefts_N11, bottoms_N11, rights_N11 = _put(np.array(boxes), device)[:, :, None, None].unbind(1)
    y_H1 = torch.arange(images_NHWC.shape[1], device=device)[:, None]
    x_W = torch.arange(images_NHWC.shape[2], device=device)
    return (y_H1 >= tops_N11) & (y_H1 < bottoms_N11) & (x_W >= lefts_N11) & (x_W < rights_N11)


def _put(values: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


CHANGES: dict[str, Change] = {
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
    "Color": _colour,
    "Sharpness": _sharpness,
    "Cutout": _cutout,
    **dict.fromkeys(randaugment.EITHER_WAY, _affine),
}
