"""BiT's crop: resized to a larger square, then cut out at random."""

import numpy as np
import pytest
from PIL import Image

from data.pictures import augment
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

CROP = Augmentation(crop="random", enlarge=448 / 384, flip=False)


def test_it_is_a_window_of_the_larger_square():
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    larger = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR))
    windows = {larger[y : y + 24, x : x + 24].tobytes(): (y, x) for y in range(5) for x in range(5)}
    crops = [augment(image, CROP, Preprocessing(size=(24, 24)), np.random.default_rng(seed)) for seed in range(200)]
    places = {windows[crop.tobytes()] for crop in crops}
    assert places == {(y, x) for y in range(5) for x in range(5)}


def test_without_enlarging_it_is_the_image_as_for_evaluation():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    plain = Augmentation(crop="random", enlarge=1.0, flip=False)
    assert (augment(image, plain, Preprocessing(size=(24, 24)), np.random.default_rng(0)) == image).all()


@pytest.mark.parametrize("factor", [0.99, 4.01])
def test_a_factor_out_of_range_is_refused(factor):
    with pytest.raises(UserError, match="enlarge"):
        Augmentation(crop="random", enlarge=factor)
