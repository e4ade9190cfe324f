"""Real photos, and small folders of real images, for the tests of data."""

from pathlib import Path

import numpy as np
import pytest
import skimage
import sklearn.datasets
from PIL import Image

from data.pictures import encode


@pytest.fixture(scope="session")
def photo():
    """A colour photo of 427 x 640 pixels, as uint8 RGB."""
    return np.array(sklearn.datasets.load_sample_image("flower.jpg"))


@pytest.fixture(scope="session")
def small_photo():
    """A colour photo of 60 x 90 pixels, as a Pillow image."""
    with Image.open(Path(skimage.__file__).parent / "data/chelsea.png") as image:
        pixels = np.array(image.convert("RGB").resize((90, 60), Image.Resampling.BOX))
    return Image.fromarray(pixels)  # without the file's colour profile


@pytest.fixture
def animals(tmp_path, small_photo):
    """A folder of two classes, 10 images each, in two formats and both cases of suffix."""
    root = tmp_path / "animals"
    for name, suffix, image_format in (("cat", ".JPG", "JPEG"), ("dog", ".png", "PNG")):
        (root / name).mkdir(parents=True)
        for number in range(10):
            picture = small_photo.crop((number, 0, 40 + number, 40 + number))  # 40 wide, 40 + number high
            (root / name / f"{number}{suffix}").write_bytes(encode(picture, image_format))
    return root
