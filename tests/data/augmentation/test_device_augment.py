"""The batch path against the workers' path: equal pixels, whatever was drawn."""

import numpy as np
import pytest
import torch

from data.pictures import augment
from vitlab.data.augmentation.augment import Variation, crop_and_draw, draw_erasure, draw_variation, vary
from vitlab.data.augmentation.device_augment import vary_batch
from vitlab.data.augmentation.randaugment import EITHER_WAY, OPERATIONS, Operation, argument
from vitlab.data.images import as_picture
from vitlab.data.order import SampleGenerators
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing

SIZES = [(24, 33), (1, 1), (2, 7), (64, 64)]


def images_of(count, size, photo):
    """Parts of a photo, noise, and flat images."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    for row in range(0, count, 3):
        top, left = rng.integers(300), rng.integers(500)
        images[row] = photo[top : top + size[0], left : left + size[1]]
    images[1::6] = images[1::6, :1, :1]
    return images


def agree(images, variations):
    given = torch.from_numpy(images.copy())
    found = vary_batch(given, variations)
    assert found.dtype == torch.uint8
    assert (given.numpy() == images).all()
    expected = np.stack([vary(image, variation) for image, variation in zip(images, variations, strict=True)])
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_gives_the_workers_pixels(name, size, photo):
    magnitudes = [0, 1.7, 5, 9, 10, 15, 20]
    signs = (1, -1) if name in EITHER_WAY else (1,)
    operations = [Operation(name, sign * argument(name, m), (size[0] // 2, 0)) for m in magnitudes for sign in signs]
    images = images_of(len(operations), size, photo)
    agree(images, [Variation(operations=(operation,)) for operation in operations])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "rules",
    [
        Augmentation(),
        Augmentation(randaugment_layers=3, randaugment_magnitude=9),
        Augmentation(randaugment_layers=2, randaugment_magnitude=20, erase=0.5),
        Augmentation(flip=False, erase=1.0),
        Augmentation(flip=False),
    ],
)
def test_whole_variations_give_the_workers_pixels(rules, size, photo):
    images = images_of(60, size, photo)
    agree(images, [draw_variation(rules, size, SampleGenerators(4).of(2, index)) for index in range(60)])


def test_images_of_a_batch_may_have_different_numbers_of_operations(photo):
    images = images_of(4, (20, 20), photo)
    invert, shear = Operation("Invert"), Operation("ShearX", 0.2)
    erasure = draw_erasure(1.0, (20, 20), SampleGenerators(0).of(0, 0))
    agree(
        images,
        [
            Variation(),
            Variation(operations=(invert,)),
            Variation(True, (shear, invert, shear)),
            Variation(erasure=erasure),
        ],
    )
    assert vary_batch(torch.zeros(0, 8, 8, 3, dtype=torch.uint8), []).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("crop", ["none", "pad", "inception"])
def test_cropping_in_workers_and_varying_on_the_device_is_augment(crop, photo):
    size = Preprocessing(size=(32, 24))
    rules = Augmentation(crop=crop, randaugment_layers=2, randaugment_magnitude=9, erase=0.3)
    halves = [crop_and_draw(as_picture(photo), rules, size, SampleGenerators(9).of(0, index)) for index in range(12)]
    cropped = torch.from_numpy(np.stack([image for image, _ in halves]))
    found = vary_batch(cropped, [variation for _, variation in halves])
    expected = np.stack([augment(photo, rules, size, SampleGenerators(9).of(0, index)) for index in range(12)])
    np.testing.assert_array_equal(found.numpy(), expected)
