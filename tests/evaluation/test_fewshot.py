"""The closed form against the authors' evaluator, scikit-learn, and its own algebra."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from vitlab.errors import UserError
from vitlab.evaluation import fewshot

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "fewshot.json").read_text())


def _golden_data(case):
    r = np.random.RandomState(case["seed"])
    centres = r.standard_normal((case["classes"], case["dim"]))
    labels = np.repeat(np.arange(case["classes"]), case["shots"])
    features = np.float32(centres[labels] + case["noise"] * r.standard_normal((len(labels), case["dim"])))
    test_labels = r.randint(0, case["classes"], case["test"])
    test = np.float32(centres[test_labels] + case["noise"] * r.standard_normal((case["test"], case["dim"])))
    return features, labels, test, test_labels


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_the_authors_evaluator(case):
    features, labels, test, test_labels = _golden_data(case)
    solved = fewshot.solve(features, labels, case["classes"], l2=case["l2"])
    np.testing.assert_array_equal(solved.predict(test), case["predictions_float64"])
    scores = np.asarray(case["scores_float64"])
    np.testing.assert_allclose(solved.scores(test)[: len(scores)], scores, atol=1e-3)
    assert (solved.predict(test) == test_labels).mean() == pytest.approx(case["accuracy"], abs=0.01)


@pytest.mark.parametrize(("images", "width"), [(40, 9), (9, 40), (20, 20)])
def test_scikit_learns_ridge_on_the_same_inputs(images, width):
    random = np.random.default_rng(5)
    features, labels = random.standard_normal((images, width)) * 3 + 1, np.arange(images) % 4
    test = random.standard_normal((11, width))
    solved = fewshot.solve(features, labels, 4, l2=7.0)

    def inputs(x):
        scaled = (x - features.mean(0)) / (features.std(0) + 1e-5)
        return np.concatenate([scaled, np.full((len(x), 1), 100.0)], axis=1)

    ridge = Ridge(alpha=7.0, fit_intercept=False, solver="svd").fit(inputs(features), 2 * np.eye(4)[labels] - 1)
    np.testing.assert_allclose(solved.scores(test), ridge.predict(inputs(test)), atol=1e-8)


def test_tensors_in_tensors_out():
    features, labels = torch.randn(12, 5), torch.arange(12) % 3
    solved = fewshot.solve(features, labels, 3)
    assert isinstance(solved.scores(features), torch.Tensor)
    assert solved.scores(features).dtype == torch.float64
    np.testing.assert_array_equal(solved.predict(features).numpy(), solved.predict(features.numpy()))


def test_features_do_not_care_about_their_scale():
    random = np.random.default_rng(6)
    features, labels = random.standard_normal((30, 4)), np.arange(30) % 3
    scaled = features * np.array([1e3, 1.0, 10.0, 5.0]) + 7
    once, again = fewshot.solve(features, labels, 3), fewshot.solve(scaled, labels, 3)
    np.testing.assert_allclose(once.scores(features), again.scores(scaled), atol=1e-3)


def test_support_takes_as_many_of_each_class_and_depends_on_the_seed():
    labels = np.array([0, 1, 2, 2, 1, 0, 0, 1, 2, 0, 1, 2] * 5)
    chosen = fewshot.support(labels, 3, 4, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [4, 4, 4]
    assert len(set(chosen.tolist())) == 12
    np.testing.assert_array_equal(chosen, fewshot.support(labels, 3, 4, seed=1))
    assert set(chosen.tolist()) != set(fewshot.support(labels, 3, 4, seed=2).tolist())
    assert set(fewshot.support(labels, 3, 2, seed=1).tolist()) < set(chosen.tolist())


def test_the_support_is_pinned():
    """Results of a later version are comparable with those of an earlier one."""
    assert fewshot.support(np.arange(24) % 2, 2, 3, seed=1).tolist() == [22, 16, 12, 1, 5, 17]


def test_evaluation_on_separable_features_is_perfect_and_reports_every_seed():
    labels = np.arange(60) % 3
    features = np.eye(3)[labels] * 10 + np.random.default_rng(0).standard_normal((60, 3)) * 0.1
    result = fewshot.evaluate((features, labels), (features, labels), ["a", "b", "c"], [1, 5], seeds=4)
    assert result.accuracies[5] == (1.0,) * 4
    assert result.mean(1) == 1.0
    assert result.deviation(1) == 0.0


def test_spread_over_the_seeds_by_hand():
    found = fewshot.FewShot((1, 5), {1: (0.75,), 5: (0.25, 0.75)})
    assert (found.mean(1), found.deviation(1), found.half_width(1)) == (0.75, 0.0, 0.0)
    assert (found.mean(5), found.deviation(5)) == (0.5, pytest.approx(0.125**0.5))
    assert found.half_width(5) == pytest.approx(12.7062 * 0.25, rel=1e-4)


@pytest.mark.parametrize(
    ("features", "labels", "expected"),
    [
        (np.full((3, 2), np.nan), np.arange(3), "NaN"),
        (np.ones((3, 2)), np.array([0, 1, 3]), "3 classes"),
        (np.ones((3, 2)), np.array([0, 1]), "2 labels"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(features, labels, expected):
    with pytest.raises(UserError, match=expected):
        fewshot.solve(features, labels, 3)


def test_fewer_images_than_shots_names_the_class():
    features, labels = np.ones((5, 2)), np.array([0, 0, 0, 1, 1])
    with pytest.raises(UserError, match="'dog' has 2 training images"):
        fewshot.evaluate((features, labels), (features, labels), ["cat", "dog"], [3])
