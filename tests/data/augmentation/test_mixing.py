"""Laws of Mixup and CutMix: what is mixed, with whom, by how much, and that ranks agree."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitlab.data.augmentation.mixing import check_ranks, draw_mix, mix_batch, partners
from vitlab.errors import UserError
from vitlab.recipes.augmentation import Augmentation

MIXUP = Augmentation(mixup=0.4)
CUTMIX = Augmentation(cutmix=1.0)
BOTH = Augmentation(mixup=0.4, cutmix=1.0)


def batch(images, classes=5, size=(6, 10)):
    generator = torch.Generator().manual_seed(images)
    return torch.randn(images, 3, *size, generator=generator), torch.randint(classes, (images,), generator=generator)


@given(st.integers(1, 300))
def test_every_image_is_the_other_one_once(size):
    others = partners(size)
    assert sorted(others) == list(range(size))
    assert all(other != own for own, other in enumerate(others)) or size == 1
    assert all(abs(other - own) <= 2 for own, other in enumerate(others))


def test_pairs_and_a_ring_of_three():
    assert partners(4).tolist() == [1, 0, 3, 2]
    assert partners(7).tolist() == [1, 0, 3, 2, 5, 6, 4]
    assert partners(3).tolist() == [1, 2, 0]
    assert partners(1).tolist() == [0]


@given(st.integers(1, 40), st.data())
def test_an_image_whose_other_one_is_missing_stays_as_it_is(size, data):
    kept = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    whole, found = partners(size), partners(size, kept)
    for row, position in enumerate(kept):
        assert kept[found[row]] == (whole[position] if whole[position] in kept else position)


@pytest.mark.parametrize(("size", "ranks"), [(6, 2), (12, 4), (4, 4), (7, 7)])
def test_ranks_that_would_cut_pairs_are_refused(size, ranks):
    with pytest.raises(UserError, match=rf"^batch_size is {size} over {ranks} ranks: .* multiple of {2 * ranks}$"):
        check_ranks(size, ranks)


def test_ranks_that_hold_whole_pairs_are_not():
    for size, ranks in ((1, 1), (7, 1), (4, 2), (8, 4), (1024, 8)):
        check_ranks(size, ranks)
        assert set(partners(size)[: size // ranks]) == set(range(size // ranks))


@pytest.mark.parametrize("rules", [MIXUP, CUTMIX, BOTH])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_mix_a_global_batch_alike(rules, ranks):
    images, labels = batch(16)
    for step in range(6):
        whole = mix_batch(images, labels, 5, rules, seed=3, step=step)
        part = 16 // ranks
        parts = [
            mix_batch(
                images[first : first + part], labels[first : first + part], 5, rules,
                seed=3, step=step, batch_size=16, positions_N=np.arange(first, first + part),
            )
            for first in range(0, 16, part)
        ]  # fmt: skip
        for found, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(found), expected)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 7])
def test_mixup_by_hand(images):
    pixels, labels = batch(images)
    own = draw_mix(MIXUP, (6, 10), 1, 2)[0]
    assert 0.5 <= own <= 1
    mixed, targets = mix_batch(pixels, labels, 5, MIXUP, seed=1, step=2)
    for row, other in enumerate(partners(images)):
        expected = own * pixels[row].double().numpy() + (1 - own) * pixels[other].double().numpy()
        np.testing.assert_allclose(mixed[row].numpy(), expected, atol=1e-6)
        expected = np.zeros(5)
        expected[labels[row]] += own
        expected[labels[other]] += 1 - own
        np.testing.assert_allclose(targets[row].numpy(), expected, atol=1e-6)
    assert targets.dtype == torch.float32


@pytest.mark.parametrize("images", [2, 5])
def test_cutmix_by_hand(images):
    pixels, labels = batch(images)
    boxes = set()
    for step in range(40):
        _, box = draw_mix(CUTMIX, (6, 10), 1, step)
        top, left, bottom, right = box
        boxes.add(box)
        mixed, targets = mix_batch(pixels, labels, 5, CUTMIX, seed=1, step=step)
        for row, other in enumerate(partners(images)):
            kept = 0
            for y in range(6):
                for x in range(10):
                    inside = top <= y < bottom and left <= x < right
                    assert (mixed[row, :, y, x] == pixels[other if inside else row, :, y, x]).all()
                    kept += not inside
            expected = np.zeros(5)
            expected[labels[row]] += kept / 60
            expected[labels[other]] += 1 - kept / 60
            np.testing.assert_allclose(targets[row].numpy(), expected, atol=1e-6)
    assert len(boxes) > 10


def test_mixups_share_has_the_distribution_of_the_larger_of_a_beta_pair():
    found = np.sort([draw_mix(Augmentation(mixup=1.0), (6, 10), 7, step)[0] for step in range(3000)])
    expected = 0.5 + (np.arange(3000) + 0.5) / 6000  # Beta(1, 1) is uniform, and so is the larger half of it
    assert abs(found - expected).max() * 2 < 1.95 / np.sqrt(3000)  # Kolmogorov-Smirnov at 0.1 %


def test_a_small_alpha_mixes_little():
    """Beta(0.2, 0.2): E[max(x, 1 - x)] = 1/2 + E|x - 1/2|, summed numerically."""
    points = (np.arange(2_000_000) + 0.5) / 2_000_000
    weights = (points * (1 - points)) ** -0.8
    expected = (np.maximum(points, 1 - points) * weights).sum() / weights.sum()
    found = [draw_mix(Augmentation(mixup=0.2), (6, 10), 7, step)[0] for step in range(3000)]
    assert abs(np.mean(found) - expected) < 4 * np.std(found) / np.sqrt(3000) + 0.003


def test_cutmix_boxes_lie_in_the_image_and_leave_the_beta_share_where_nothing_is_cut_off():
    shares = []
    for step in range(3000):
        own, box = draw_mix(CUTMIX, (200, 100), 7, step)
        top, left, bottom, right = box
        assert 0 <= top <= bottom <= 200
        assert 0 <= left <= right <= 100
        assert own == pytest.approx(1 - (bottom - top) * (right - left) / 20000)
        if top > 0 and left > 0 and bottom < 200 and right < 100:
            assert abs((bottom - top) - 2 * (right - left)) <= 4  # the image's proportions
        shares.append(own)
    # With lambda uniform, E[area] by hand: a side of s = sqrt(1 - lambda) with a uniform centre keeps s - s^2 / 4.
    side = np.sqrt((np.arange(10000) + 0.5) / 10000)
    expected = 1 - ((side - side**2 / 4) ** 2).mean()
    assert abs(np.mean(shares) - expected) < 4 * np.std(shares) / np.sqrt(3000) + 0.02


def test_with_both_on_each_batch_gets_either():
    cut = sum(draw_mix(BOTH, (6, 10), 7, step)[1] is not None for step in range(1000))
    assert abs(cut - 500) < 3 * np.sqrt(250)
    assert all(draw_mix(MIXUP, (6, 10), 7, step)[1] is None for step in range(50))
    assert all(draw_mix(CUTMIX, (6, 10), 7, step)[1] is not None for step in range(50))


def test_draws_follow_seed_and_step_alone():
    assert draw_mix(BOTH, (6, 10), 7, 3) == draw_mix(BOTH, (6, 10), 7, 3)
    assert len({draw_mix(MIXUP, (6, 10), 7, step)[0] for step in range(50)}) == 50
    assert len({draw_mix(MIXUP, (6, 10), seed, 3)[0] for seed in (0, 1, -1, 2**64 + 5)}) == 4


@pytest.mark.parametrize("rules", [MIXUP, CUTMIX])
def test_soft_targets_keep_their_sums_and_nothing_given_is_changed(rules):
    images, labels = batch(6)
    soft = torch.rand(6, 5)
    before = images.clone(), soft.clone()
    _, targets = mix_batch(images, soft, 5, rules, seed=0, step=1)
    own = draw_mix(rules, (6, 10), 0, 1)[0]
    expected = soft * own + soft[torch.tensor([1, 0, 3, 2, 5, 4])] * (1 - own)
    torch.testing.assert_close(targets, expected)
    assert torch.equal(images, before[0])
    assert torch.equal(soft, before[1])
    _, hard = mix_batch(images, labels, 5, rules, seed=0, step=1)
    torch.testing.assert_close(hard.sum(-1), torch.ones(6))
    half = mix_batch(images.bfloat16(), labels, 5, rules, seed=0, step=1)
    assert half[0].dtype == torch.bfloat16
    assert half[1].dtype == torch.float32
