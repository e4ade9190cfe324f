"""Arrays as sources of images."""

import io

import numpy as np
import pytest
from PIL import Image

from vitlab.data.arrays import array_source
from vitlab.data.images import decode
from vitlab.errors import UserError


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (64, 64), (1, 1, 3), (5, 3, 3), (32, 32, 3)])
def test_images_are_handed_out_as_they_are(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    source = array_source("x", "train/", ("a", "b"), np.array([0, 1]), image.size, lambda index: image)
    with Image.open(io.BytesIO(source.read(1).encoded)) as opened:
        found = np.asarray(opened)
    assert (source.read(1).data == found).all()
    own = decode(source.read(1).data, "x")
    assert (own == found).all()
    own += 1  # the decoder's pixels are the caller's own
    assert found.shape == (*shape[:2], 3)
    assert (found == (image if len(shape) == 3 else image[:, :, None])).all()


def test_labels_are_checked():
    def pixels(index):
        return np.full((2, 2), index, np.uint8)

    source = array_source("x", "train/", ("a", "b"), np.array([0, 1, 1]), 4, pixels)
    assert [source.key(index) for index in range(3)] == ["train/0", "train/1", "train/2"]
    assert (decode(source.read(2).data, "x") == 2).all()
    assert source.read(2).name == "x image 2"
    for labels, message in (
        ([0, 2], "image 1 has the label 2"),
        ([-1, 0], "image 0 has the label -1"),
        ([], "no image"),
    ):
        with pytest.raises(UserError, match=message):
            array_source("x", "train/", ("a", "b"), np.array(labels, np.int64), 4, pixels)
    with pytest.raises(UserError, match="there is only the class 'a'"):
        array_source("x", "train/", ("a",), np.array([0]), 4, pixels)
