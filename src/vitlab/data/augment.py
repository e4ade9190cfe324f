"""Training augmentation of one image; every draw comes from the generator that is handed in."""

from dataclasses import replace
from math import sqrt

import numpy as np

from vitlab.data.augmentation.variation import Variation, draw_variation, vary
from vitlab.data.decoding.jpeg import largest_shrink
from vitlab.data.images import RGB, Picture, as_picture
from vitlab.data.resize import bilinear, prepare
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

ATTEMPTS = 100  # TensorFlow's default; after as many misses the whole image is taken


def augment(
    image: RGB | Picture, augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator
) -> RGB:
    """Varies a training image and brings it to the model's input size (sections 4.1 and B.1.1; appendix B.1).

    Args:
        image: uint8 RGB of any size, or a picture that is still to be decoded; it is not written to.
        augmentation: the crop, and what follows it.
        preprocessing: the model's; gives the size, and the resize of crops "none" and "pad".
        rng: the sample's own generator; draws are made in a fixed order.

    Returns:
        uint8 RGB of `preprocessing.size`.
    """
    return vary(*crop_and_draw(image, augmentation, preprocessing, rng))


def crop_and_draw(
    image: RGB | Picture, augmentation: Augmentation, preprocessing: Preprocessing, rng: np.random.Generator
) -> tuple[RGB, Variation]:
    """The first half of `augment`: the cropped image, and what is still to be done to it, drawn but not applied.

    `vary` applies it to the image, `vary_batch` of `vitlab.data.augmentation.device_augment` to a batch on the device,
    with equal pixels.

    Returns:
        (image_HWC, variation): uint8 RGB of `preprocessing.size`, and the draws.
    """
    picture = as_picture(image) if isinstance(image, np.ndarray) else image
    if augmentation.crop == "inception":
        cropped_HWC = inception_crop(picture, augmentation, preprocessing.size, rng)
    elif augmentation.crop == "random":
        cropped_HWC = random_crop(picture.pixels(), augmentation.enlarge, preprocessing, rng)
    else:
        cropped_HWC = prepare(picture.pixels(), preprocessing)
        if augmentation.crop == "pad" and augmentation.pad > 0:
            cropped_HWC = pad_crop(cropped_HWC, augmentation.pad, rng)
    return cropped_HWC, draw_variation(augmentation, preprocessing.size, rng)


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


def inception_crop(
    picture: Picture, augmentation: Augmentation, size: tuple[int, int], rng: np.random.Generator
) -> RGB:
    """Cuts a random box and resizes it to `size`, bilinearly without antialiasing, as the original code.

    A JPEG whose box is at least twice `size` is decoded at 1/2, 1/4 or 1/8 of its resolution, as far as the box still
    holds `size` pixels: that costs less, and does the averaging that the plain bilinear resize leaves out. The box's
    edges then move outwards to whole pixels of the smaller image.
    """
    top, left, height, width = crop_box(picture.height, picture.width, augmentation, rng)
    shrink = largest_shrink(height, width, size) if picture.shrinkable else 1
    rows = slice(top // shrink, -(-(top + height) // shrink))
    columns = slice(left // shrink, -(-(left + width) // shrink))
    return bilinear(picture.pixels(shrink)[rows, columns], size)


def random_crop(image_HWC: RGB, enlarge: float, preprocessing: Preprocessing, rng: np.random.Generator) -> RGB:
    """Resizes to `enlarge` times the model's input, whatever the proportions, and cuts the input out anywhere (BiT)."""
    height, width = preprocessing.size
    larger = round(height * enlarge), round(width * enlarge)
    enlarged_HWC = prepare(image_HWC, replace(preprocessing, size=larger, resize="square", crop=1.0))
    top = int(rng.integers(larger[0] - height + 1))
    left = int(rng.integers(larger[1] - width + 1))
    return enlarged_HWC[top : top + height, left : left + width]


def pad_crop(image_HWC: RGB, pad: int, rng: np.random.Generator) -> RGB:
    """Adds `pad` black pixels on every side and cuts the original size out at a random place."""
    height, width, channels = image_HWC.shape
    top, left = draw_place(pad, rng)
    padded_HWC = np.zeros((height + 2 * pad, width + 2 * pad, channels), np.uint8)
    padded_HWC[pad : pad + height, pad : pad + width] = image_HWC
    return padded_HWC[top : top + height, left : left + width]


def draw_place(pad: int, rng: np.random.Generator) -> tuple[int, int]:
    """Where a crop of an image with `pad` more pixels on every side begins: (top, left)."""
    # One by one: the same numbers as two at once, in half the time.
    return int(rng.integers(2 * pad + 1)), int(rng.integers(2 * pad + 1))
