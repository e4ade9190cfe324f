"""The batch path against the workers' path: equal pixels, whatever was drawn."""

import numpy as np
import pytest
import torch

from vitlab.data.augment import augment, crop_and_draw
from vitlab.data.augmentation.device_augment import crop_batch, vary_batch
from vitlab.data.augmentation.erasing import draw_erasure
from vitlab.data.augmentation.randaugment import EITHER_WAY, OPERATIONS, Operation, argument
from vitlab.data.augmentation.variation import Variation, draw_variation, vary
from vitlab.data.order import SampleGenerators
from vitlab.data.resize import bilinear
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
    halves = [crop_and_draw(photo, rules, size, SampleGenerators(9).of(0, index)) for index in range(12)]
    cropped = torch.from_numpy(np.stack([image for image, _ in halves]))
    found = vary_batch(cropped, [variation for _, variation in halves])
    expected = np.stack([augment(photo, rules, size, SampleGenerators(9).of(0, index)) for index in range(12)])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_a_crop_that_is_not_resized_is_exact(photo):
    images = np.stack([photo[:90, :100], photo[200:290, 300:400]])
    boxes = torch.tensor([[0, 0, 40, 30], [50, 70, 40, 30]])
    found = crop_batch(torch.from_numpy(images), boxes, (40, 30)).numpy()
    np.testing.assert_array_equal(found[0], images[0, :40, :30])
    np.testing.assert_array_equal(found[1], images[1, 50:, 70:])


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (1, 1)])
def test_resized_crops_are_bilinear_within_a_level(size, photo):
    images = np.stack([photo[:120, :130], photo[200:320, 300:430], photo[50:170, 90:220]])
    boxes = [(0, 0, 120, 130), (13, 7, 20, 100), (119, 128, 1, 2)]
    found = crop_batch(torch.from_numpy(images), torch.tensor(boxes), size).numpy().astype(int)
    for image, (top, left, height, width), crop in zip(images, boxes, found, strict=True):
        cut = np.ascontiguousarray(image[top : top + height, left : left + width])
        numbers = torch.from_numpy(cut).permute(2, 0, 1)[None].double()
        exact = torch.nn.functional.interpolate(numbers, size=size, mode="bilinear", align_corners=False)[0]
        assert abs(crop - exact.permute(1, 2, 0).numpy()).max() <= 0.51
        assert abs(crop - bilinear(cut, size)).max() <= 1


def test_pixels_outside_the_box_are_never_seen(photo):
    images = np.full((1, 60, 60, 3), 255, np.uint8)
    images[0, 10:30, 20:50] = photo[:20, :30] // 2
    found = crop_batch(torch.from_numpy(images), torch.tensor([[10, 20, 20, 30]]), (47, 53)).numpy()
    assert found.max() <= 127
