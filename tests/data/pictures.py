"""Encodes pictures for the tests of data."""

import io


def encode(image, image_format="PNG", **options):
    packed = io.BytesIO()
    image.save(packed, image_format, **options)
    return packed.getvalue()
