"""One decomposition serves all penalties, in both forms and both precisions, and only those features count."""

import dataclasses

import numpy as np
import pytest
import torch

from vitlab.errors import UserError
from vitlab.evaluation import fewshot
from vitlab.evaluation.fewshot import PENALTIES
from vitlab.evaluation.least_squares import factorise, solve


def _clusters(images, width, classes, seed=0, noise=1.0):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(99).standard_normal((classes, width))
    return np.float32(centres[labels] + noise * random.standard_normal((images, width))), labels


@pytest.mark.parametrize(("images", "width"), [(60, 12), (12, 60)])
def test_every_penalty_of_a_sweep_is_the_solution_of_the_equations(images, width):
    features, labels = _clusters(images, width, 4)
    factors = factorise(features, labels, 4)
    assert len(factors.values_R) == min(images, width + 1)  # the smaller of the two matrices
    inputs = (features.astype(np.float64) - features.mean(0, np.float64)) / (features.std(0, dtype=np.float64) + 1e-5)
    inputs = np.concatenate([inputs, np.full((images, 1), 100.0)], axis=1)
    targets = 2 * np.eye(4)[labels] - 1
    for penalty in (0.5, 32.0, 4096.0):
        wanted = np.linalg.solve(inputs.T @ inputs + penalty * np.eye(width + 1), inputs.T @ targets)
        np.testing.assert_allclose(factors.at(penalty).weights_EK.numpy(), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("images", [60, 8])
def test_a_sweep_is_as_many_solutions(images):
    features, labels = _clusters(images, 20, 4)
    test, truth = _clusters(200, 20, 4, seed=1, noise=2.0)
    swept = factorise(features, labels, 4).sweep(test, truth, PENALTIES)
    alone = [float((solve(features, labels, 4, l2).predict(test) == truth).mean()) for l2 in PENALTIES]
    assert swept == alone
    assert len(set(swept)) > 1
    assert len(PENALTIES) == 30


def test_float32_agrees_with_float64():
    features, labels = _clusters(300, 40, 10)
    test, _ = _clusters(500, 40, 10, seed=1)
    exact, quick = solve(features, labels, 10), solve(features, labels, 10, dtype=torch.float32)
    assert quick.scores(torch.from_numpy(test)).dtype == torch.float32
    np.testing.assert_allclose(quick.scores(test), exact.scores(test), atol=2e-3)
    assert (quick.predict(test) == exact.predict(test)).mean() > 0.995


def test_a_class_without_an_image_is_never_predicted_first():
    features, labels = _clusters(30, 6, 2)
    solved = solve(features, labels, 3, l2=1.0)
    assert not (solved.predict(features) == 2).any()


@pytest.mark.parametrize("probe", ["ridge", "knn", "logistic"])
def test_every_probe_tells_separable_classes_apart(probe):
    train, test = _clusters(80, 8, 4, noise=0.05), _clusters(40, 8, 4, seed=1, noise=0.05)
    result = fewshot.evaluate(train, test, list("abcd"), [1, 5], seeds=2, probe=probe)
    assert result.accuracies == {1: (1.0, 1.0), 5: (1.0, 1.0)}


def test_an_evaluation_is_its_parts_for_every_seed_and_number_of_shots():
    train, test = _clusters(80, 8, 4, noise=2.0), _clusters(60, 8, 4, seed=1, noise=2.0)
    result = fewshot.evaluate(train, test, list("abcd"), [1, 2, 9], seeds=2, l2=3.0)
    for shots in (1, 2, 9):
        for seed in range(2):
            chosen = fewshot.support(train[1], 4, shots, seed)
            predicted = solve(train[0][chosen], train[1][chosen], 4, l2=3.0).predict(test[0])
            assert result.accuracies[shots][seed] == pytest.approx((predicted == test[1]).mean())
    assert len(set(sum(result.accuracies.values(), ()))) > 3


def test_an_evaluation_has_the_precision_that_is_asked_for(monkeypatch):
    train, seen = _clusters(40, 5, 4), []
    monkeypatch.setattr(fewshot, "factorise", lambda *given: seen.append(given[-1]) or factorise(*given))
    for dtype in (torch.float32, torch.float64):
        fewshot.evaluate(train, train, list("abcd"), [3], seeds=1, dtype=dtype)
    assert seen == [torch.float32, torch.float64]


def test_penalties_and_defaults_are_the_papers():
    assert (min(PENALTIES), max(PENALTIES)) == (2.0**-10, 2.0**19)
    train, test = _clusters(80, 8, 4, noise=2.0), _clusters(60, 8, 4, seed=1, noise=2.0)
    by_default = fewshot.evaluate(train, test, list("abcd"), [5], penalties=(1024.0, 1.0))
    assert len(by_default.accuracies[5]) == 3
    assert by_default.mean(5) == by_default.sweep[5][1024.0] != by_default.sweep[5][1.0]


def test_the_sweep_of_an_evaluation_is_the_mean_over_the_seeds():
    train, test = _clusters(80, 8, 4, noise=2.0), _clusters(60, 8, 4, seed=1, noise=2.0)
    result = fewshot.evaluate(train, test, list("abcd"), [3], seeds=3, l2=8.0, penalties=(8.0, 0.25))
    assert result.sweep[3][8.0] == pytest.approx(result.mean(3))
    assert set(result.sweep[3]) == {8.0, 0.25}
    assert result.half_width(3) > result.deviation(3)


def _with(features, values):
    changed = features.copy()
    for row, value in values.items():
        changed[row, 1] = value
    return changed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda train, test: ((train[0][:11], train[1][:11]), test), "'d' has 2 training images, fewer than 3"),
        (lambda train, test: (train, (test[0][test[1] != 1], test[1][test[1] != 1])), "'b' has no test image"),
        (lambda train, test: ((train[0], train[1] + 1), test), "from 1 to 4, but there are 4"),
        (lambda train, test: (train, (test[0], test[1] - 1)), "from -1 to 2, but there are 4"),
        (lambda train, test: ((train[0] * np.float32(np.nan), train[1]), test), "training image 0 .*NaN"),
        (lambda train, test: (train, (_with(test[0], {7: np.nan, 9: np.inf}), test[1])), "test image 7 .*of 2 images"),
        (lambda train, test: (train, (_with(test[0], {3: -np.inf}), test[1])), "test image 3 .*infinite"),
    ],
)
@pytest.mark.parametrize("probe", ["ridge", "knn", "logistic"])
def test_bad_input_is_one_line(change, expected, probe):
    train, test = _clusters(40, 5, 4), _clusters(20, 5, 4, seed=1)
    train, test = change(train, test)
    with pytest.raises(UserError, match=expected) as error:
        fewshot.evaluate(train, test, list("abcd"), [1, 3], probe=probe)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("l2", [np.inf, np.nan, -1.0, 1e31])
def test_a_penalty_that_leaves_nothing_to_compare_is_refused(l2):
    train, test = _clusters(40, 5, 4), _clusters(20, 5, 4, seed=1)
    with pytest.raises(UserError, match="penalty"):
        fewshot.evaluate(train, test, list("abcd"), [3], l2=l2)
    with pytest.raises(UserError, match="penalty"):
        fewshot.evaluate(train, test, list("abcd"), [3], penalties=[1.0, l2])
    with pytest.raises(UserError, match="penalty"):
        solve(*train, 4, l2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_penalty_does_not_drown_in_either_precision(dtype):
    features, labels = _clusters(400, 50, 4)
    large, largest = (solve(features, labels, 4, l2, dtype).predict(features) for l2 in (1e12, 1e30))
    np.testing.assert_array_equal(large, largest)
    assert (largest == labels).mean() > 0.9


def test_features_without_one_solution_are_refused_where_nothing_is_penalised():
    features, labels = _clusters(40, 5, 4)
    factors = factorise(features, labels, 4)
    singular = dataclasses.replace(factors, values_R=torch.cat((torch.zeros(1), factors.values_R[1:])))
    with pytest.raises(UserError, match="no unique solution"):
        singular.sweep(features, labels, [0.0])
    with pytest.raises(UserError, match="no unique solution"):
        singular.at(0.0)
    assert len(singular.sweep(features, labels, [1.0])) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_not_classified(value):
    features, labels = _clusters(40, 5, 4)
    factors, damaged = factorise(features, labels, 4), _with(features, {6: value, 8: value})
    for classify in (lambda: factors.sweep(damaged, labels, [1.0]), lambda: factors.at(1.0).predict(damaged)):
        with pytest.raises(UserError, match="row 6"):
            classify()
