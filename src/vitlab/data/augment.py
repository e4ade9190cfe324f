"""Training augmentation of one image; every draw comes from the generator that is handed in."""

from math import sqrt

import numpy as np
from PIL import Image

from vitlab.data.images import RGB, prepare
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

ATTEMPTS = 100  # TensorFlow's default; after as many misses the whole image is taken


def augment(image_HWC: RGB, augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator) -> RGB:
    """Varies a training image and brings it to the model's input size (sections 4.1 and B.1.1; appendix B.1).

    Args:
        image_HWC: uint8 RGB of any size.
        augmentation: which crop, and whether to mirror.
        preprocessing: the model's; gives the size, and the resize of crops "none" and "pad".
        rng: the sample's own generator; draws are made in a fixed order.

    Returns:
        uint8 RGB of `preprocessing.size`.
    """
    if augmentation.crop == "inception":
        varied_HWC = inception_crop(image_HWC, augmentation, preprocessing.size, rng)
    else:
        varied_HWC = prepare(image_HWC, preprocessing)
        if augmentation.crop == "pad" and augmentation.pad > 0:
            varied_HWC = pad_crop(varied_HWC, augmentation.pad, rng)
    if augmentation.flip and rng.random() < 0.5:
        varied_HWC = varied_HWC[:, ::-1]
    return varied_HWC


def crop_box(
    height: int, width: int, augmentation: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draws an Inception crop the way TensorFlow's `sample_distorted_bounding_box` does.

    Up to 100 times: draw the aspect ratio width / height uniformly (torchvision draws its logarithm); among
    the whole heights whose box has a permitted area and fits into the image, draw one uniformly (torchvision
    draws the area uniformly, which gives larger boxes less often); accept if the rounded box still has a
    permitted area and fits. Otherwise the whole image. The place is uniform over all places where the box
    fits.

    Returns:
        (top, left, height, width) in pixels.
    """
    smallest, largest = (share * height * width for share in augmentation.area)
    low, high = augmentation.aspect
    for _ in range(ATTEMPTS):
        aspect = low + (high - low) * rng.random()
        lowest = round(sqrt(smallest / aspect))
        highest = min(round(sqrt(largest / aspect)), height)
        if round(highest * aspect) > width:
            highest = int((width + 0.5 - 1e-7) / aspect)
        box_height = max(1, int(rng.integers(lowest, highest + 1)) if highest > lowest else highest)
        box_width = round(box_height * aspect)
        if smallest <= box_height * box_width <= largest and box_width <= width:
            top = int(rng.integers(height - box_height + 1))
            left = int(rng.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return 0, 0, height, width


def inception_crop(image_HWC: RGB, augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator) -> RGB:
    """Cuts a random box and resizes it to `size`, bilinearly without antialiasing, as the original code."""
    top, left, height, width = crop_box(image_HWC.shape[0], image_HWC.shape[1], augmentation, rng)
    cut = Image.fromarray(image_HWC[top : top + height, left : left + width])
    if (height, width) == size:
        return np.asarray(cut)
    resized = cut.transform(
        (size[1], size[0]), Image.Transform.EXTENT, (0, 0, width, height), Image.Resampling.BILINEAR
    )
    return np.asarray(resized)


def pad_crop(image_HWC: RGB, pad: int, rng: np.random.Generator) -> RGB:
    """Adds `pad` black pixels on every side and cuts the original size out at a random place."""
    height, width, channels = image_HWC.shape
    top, left = rng.integers(2 * pad + 1, size=2).tolist()
    padded_HWC = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.uint8)
    padded_HWC[pad : pad + height, pad : pad + width] = image_HWC
    return padded_HWC[top : top + height, left : left + width]
