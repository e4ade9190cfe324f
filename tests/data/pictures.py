"""Encodes and varies pictures for the tests of data."""

import io

from vitlab.data.augmentation.augment import crop_and_draw, vary
from vitlab.data.images import as_picture


def encode(image, image_format="PNG", **options):
    packed = io.BytesIO()
    image.save(packed, image_format, **options)
    return packed.getvalue()


def augment(image_HWC, augmentation, preprocessing, rng):
    """All of the augmentation of one image, at once."""
    return vary(*crop_and_draw(as_picture(image_HWC), augmentation, preprocessing, rng))
