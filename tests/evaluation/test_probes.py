"""Neighbours and logistic regression against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from vitlab.errors import UserError
from vitlab.evaluation import probes


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(3)
    labels = np.arange(90) % 5
    centres = random.standard_normal((5, 12))
    return centres[labels] + random.standard_normal((90, 12)), labels, random.standard_normal((70, 12))


@pytest.mark.parametrize("neighbours", [1, 7, 500])
def test_neighbours_are_scikit_learns(data, neighbours):
    features, labels, test = data
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    wanted = KNeighborsClassifier(
        min(neighbours, 90), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(unit, labels)
    found = probes.nearest_neighbours(features, labels, 5, neighbours=neighbours)
    np.testing.assert_array_equal(found.predict(test), wanted.predict(test))


def test_neighbours_in_chunks_are_the_same(data, monkeypatch):
    features, labels, test = data
    whole = probes.nearest_neighbours(features, labels, 5).predict(test)
    monkeypatch.setattr(probes, "CHUNK", 8)
    np.testing.assert_array_equal(probes.nearest_neighbours(features, labels, 5).predict(test), whole)


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_logistic_regression_is_scikit_learns(data, l2):
    features, labels, test = data
    mean, spread = features.mean(0), features.std(0) + 1e-5
    wanted = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit((features - mean) / spread, labels)
    found = probes.logistic(features, labels, 5, l2)
    scores = found.logits(test).numpy()
    expected = wanted.decision_function((test - mean) / spread)
    scores -= scores.mean(1, keepdims=True)  # a constant for all classes changes nothing
    expected -= expected.mean(1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=2e-3)


@pytest.mark.parametrize("fit", [probes.nearest_neighbours, probes.logistic])
def test_bad_features_are_one_line(data, fit):
    features, labels, _ = data
    with pytest.raises(UserError, match="NaN"):
        fit(features * np.nan, labels, 5)
    with pytest.raises(UserError, match="4 classes"):
        fit(features, labels, 4)
