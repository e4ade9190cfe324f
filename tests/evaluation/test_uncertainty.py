"""Calibration and intervals, against values worked out by hand and by scipy."""

import numpy as np
import pytest
from scipy import stats

from vitlab.evaluation.uncertainty import (
    expected_calibration_error,
    reliability,
    student_half_width,
    wilson_interval,
)

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.25, 0.75]], dtype=np.float32)


def test_error_by_hand():
    bins = reliability(LABELS, PROBABILITIES, bins=10)
    assert [each.images for each in bins] == [0, 0, 0, 0, 0, 1, 0, 1, 0, 2]
    assert (bins[5].accuracy, bins[7].accuracy, bins[9].accuracy) == (0.0, 1.0, 1.0)
    assert bins[9].confidence == pytest.approx(0.95)
    assert [(each.low, each.high) for each in bins] == [(number / 10, (number + 1) / 10) for number in range(10)]
    assert expected_calibration_error(bins) == pytest.approx((0.55 + 0.25 + 2 * 0.05) / 4)


def test_an_edge_belongs_to_the_lower_bin_and_certainty_to_the_last():
    bins = reliability(np.array([0, 0]), np.array([[0.5, 0.5], [1.0, 0.0]], np.float32), bins=2)
    assert [each.images for each in bins] == [1, 1]
    assert bins[1].accuracy == 1.0
    above_one = np.array([[1.000001, 0.0]], np.float32)  # by rounding
    assert [each.images for each in reliability(np.array([0]), above_one, bins=2)] == [0, 1]


def test_there_are_fifteen_bins_and_no_error_without_images():
    none = reliability(LABELS[:0], PROBABILITIES[:0])
    assert [each.images for each in none] == [0] * 15
    assert expected_calibration_error(none) == 0


def test_probabilities_that_say_the_truth_have_a_small_error():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), 40_000).astype(np.float32)
    labels = (probabilities.cumsum(1) < random.random(40_000)[:, None]).sum(1).clip(0, 4)
    assert expected_calibration_error(reliability(labels, probabilities)) < 0.01


@pytest.mark.parametrize(("correct", "images"), [(0, 5), (5, 5), (1, 3), (838, 1000), (49_999, 50_000)])
def test_wilson_is_scipys(correct, images):
    wanted = stats.binomtest(correct, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, images) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_of_no_image_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_ends_exactly_at_none_and_at_all():
    assert {wilson_interval(0, images)[0] for images in range(1, 200)} == {0.0}
    assert {wilson_interval(images, images)[1] for images in range(1, 200)} == {1.0}


def test_of_many_seeds_the_interval_is_the_normals():
    values = np.random.default_rng(0).random(22).tolist()
    assert student_half_width(values) == pytest.approx(stats.sem(values) * stats.norm.ppf(0.975))


@pytest.mark.parametrize("count", range(2, 22))
def test_students_interval_is_scipys(count):
    values = np.random.default_rng(count).random(count).tolist()
    wanted = stats.sem(values) * stats.t.ppf(0.975, count - 1)
    assert student_half_width(values) == pytest.approx(wanted, rel=1e-4)
    assert student_half_width(values[:1]) == 0.0
