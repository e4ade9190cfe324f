"""Hashes and small pictures: what changes them and what does not."""

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from data.planted import cropped, photo_tiles
from vitlab.dedup import alignment
from vitlab.dedup.alignment import distances
from vitlab.dedup.perceptual import (
    SIDE,
    VARIANTS,
    cubic,
    hashes,
    is_blank,
    resampling,
    thumbnail,
    variant_hashes,
)


@pytest.fixture(scope="module")
def tiles():
    """Forty pieces of photos, far apart in the list and so of different photos and sizes."""
    every = photo_tiles()
    return every[:: len(every) // 40][:40]


@pytest.fixture(scope="module")
def pictures(tiles):
    return np.stack([thumbnail(tile) for tile in tiles])


def test_a_hash_bit_is_the_sign_of_a_low_frequency(pictures):
    coefficients = dctn(pictures.astype(np.float64), axes=(1, 2))
    order = sorted(((u, v) for u in range(SIDE) for v in range(SIDE)), key=lambda pair: (sum(pair), pair))[1:65]
    expected = [
        int("".join("1" if coefficients[n, u, v] > 0 else "0" for u, v in order), 2) for n in range(len(pictures))
    ]
    assert hashes(pictures).tolist() == expected


def test_brightness_and_contrast_do_not_change_a_hash(pictures):
    assert (hashes(pictures * np.float32(0.37) + np.float32(11)) == hashes(pictures)).all()


def test_the_first_two_variants_are_the_image_and_its_mirror(pictures):
    found = variant_hashes(pictures)
    assert found.shape == (len(pictures), VARIANTS)
    assert np.bitwise_count(found[:, 0] ^ hashes(pictures)).max() == 0
    assert np.bitwise_count(found[:, 1] ^ hashes(np.ascontiguousarray(pictures[:, :, ::-1]))).max() <= 1


def test_variants_bring_a_crop_closer(tiles, pictures):
    random = np.random.default_rng(0)
    codes = hashes(np.stack([thumbnail(cropped(tile, random)) for tile in tiles]))
    nearest = np.bitwise_count(variant_hashes(pictures) ^ codes[:, None]).min(1)
    alone = np.bitwise_count(hashes(pictures) ^ codes)
    assert nearest.mean() < alone.mean() / 2
    assert nearest.max() <= 10


def test_resampling_without_change_is_the_identity():
    weights, places = resampling(np.zeros(1, np.float32), np.zeros(1, np.float32))
    np.testing.assert_allclose(weights[0], np.eye(SIDE), atol=1e-6)
    np.testing.assert_allclose(places[0], np.arange(SIDE), atol=1e-5)


def test_resampling_of_a_straight_line_is_a_straight_line():
    weights, places = resampling(np.array([-0.1], np.float32), np.array([0.05], np.float32))
    line = np.arange(SIDE, dtype=np.float32)
    np.testing.assert_allclose((weights[0] @ line)[1:-1], places[0][1:-1], atol=1e-4)  # the kernel leaves the edges
    expected = ((np.arange(SIDE) + 0.5) / SIDE * 2 - 1) * 0.9 + 0.05
    np.testing.assert_allclose((places[0] + 0.5) / SIDE * 2 - 1, expected, atol=1e-6)


def test_the_cubic_kernel_is_that_of_the_formula():
    np.testing.assert_allclose(cubic(np.array([0, 0.5, -1, 1.5, 2, 3])), [1, 0.5625, 0, -0.0625, 0, 0], atol=1e-7)


def test_blurring_is_a_gaussian(pictures):
    blurred = alignment._blur(pictures.astype(np.float32), 1.5)
    expected = gaussian_filter(pictures.astype(np.float64), (0, 1.5, 1.5), mode="nearest", truncate=4)
    np.testing.assert_allclose(blurred, expected, atol=0.05)


def test_the_same_picture_is_at_the_least_distance(pictures):
    np.testing.assert_allclose(distances(pictures, pictures), 0.5 * np.sqrt(1e-3), rtol=0.02)


def test_a_shifted_and_scaled_picture_is_brought_back(tiles):
    """The same window of a photo, once moved and stretched by known amounts."""
    large = [Image.fromarray(tile) for tile in tiles if tile.shape[0] == 192]
    first = np.stack([thumbnail(np.array(image.crop((10, 10, 180, 180)))) for image in large])
    second = np.stack([thumbnail(np.array(image.crop((14, 8, 178, 184)))) for image in large])
    size = (SIDE, SIDE)
    assert first.shape == (len(large), *size)
    apart = distances(first, second)
    assert np.median(apart) < 0.3
    assert (apart < distances(first, np.roll(second, 1, axis=0))).all()
    _, warps = alignment._align(
        alignment._detail(first.astype(np.float32)), alignment._detail(second.astype(np.float32)),
        np.zeros((len(large), 4), np.float32), 6,
    )  # fmt: skip
    # Centres of the windows: 95, 95 and 96, 96; half sides: 85, 85 and 82, 88.
    np.testing.assert_allclose(np.median(warps, axis=0), [85 / 82 - 1, -1 / 82, 85 / 88 - 1, -1 / 88], atol=4e-3)


def test_fine_alignment_brings_crops_closer(tiles, pictures, monkeypatch):
    random = np.random.default_rng(0)
    parts = np.stack([thumbnail(cropped(tile, random)) for tile in tiles])
    refined = distances(pictures, parts)
    monkeypatch.setattr(alignment, "REFINED_BELOW", 0.0)
    coarse = distances(pictures, parts)
    assert (refined <= coarse + 1e-9).all()
    assert np.mean(refined < 0.9 * coarse) > 0.2


def test_other_images_are_far_apart(pictures):
    others = distances(pictures[:-1], pictures[1:])
    assert others.min() > 3


def test_one_bright_patch_keeps_two_pictures_apart(pictures):
    """Things of one outline that differ in an area are not one, however well the rest agrees."""
    changed = pictures.copy()
    changed[:, 12:18, 12:18] = 255 - changed[:, 12:18, 12:18]
    changed_much = np.abs(changed.astype(int) - pictures).max((1, 2)) > 100
    assert changed_much.sum() > 10
    assert (distances(pictures, changed)[changed_much] > 1).all()


def test_order_of_pairs_and_batches_changes_nothing(pictures, monkeypatch):
    first, second = np.repeat(pictures, 8, axis=0), np.tile(pictures, (8, 1, 1))
    whole = distances(first, second)
    assert (distances(first[::-1], second[::-1])[::-1] == whole).all()
    monkeypatch.setattr(alignment, "BATCH", 7)
    np.testing.assert_allclose(distances(first, second), whole, rtol=1e-4)
    assert distances(first[:0], second[:0]).shape == (0,)


def test_even_pictures_are_blank(pictures):
    flat = np.full((1, SIDE, SIDE), 77, np.uint8)
    flat[0, 0, 0] += 3
    assert is_blank(flat).all()
    assert not is_blank(pictures).any()
    assert np.isfinite(distances(flat, flat)).all()
    assert np.isfinite(distances(flat, pictures[:1])).all()
