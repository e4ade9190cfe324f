"""The scikit-learn classifier: scikit-learn's own checks and tools, every form of images, and honest errors."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import sklearn.utils.estimator_checks as checks
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import vitlab
from vitlab.errors import UserError
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, with_changes

TINY = dict(image_size=8, options=dict(hidden=32, layers=2, heads=2, mlp=64), device="cpu")


def tiny(**changes):
    length = {} if "recipe" in changes else {"epochs": 2, "batch_size": 32}
    model = {} if "init_from" in changes else {"model": "ViT-Ti/2"}
    return vitlab.ViTClassifier(**({**model, **TINY, **length} | changes))


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return data.images / 16, data.target


@pytest.fixture(scope="module")
def fitted(digits):
    images, labels = digits
    return tiny().fit(images[:100], labels[:100])


# scikit-learn runs only the first of these by itself, because it has no images to try: its data are tables, and all
# other checks fit them (a table is refused, see below). These look at the estimator's face and fit nothing.
@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimator_cloneable, checks.check_estimator_tags_renamed, checks.check_valid_tag_types,
        checks.check_estimator_repr, checks.check_no_attributes_set_in_init, checks.check_mixin_order,
        checks.check_parameters_default_constructible, checks.check_get_params_invariance, checks.check_set_params,
    ],
    ids=lambda check: check.__name__,
)  # fmt: skip
def test_scikit_learns_checks(check):
    check("ViTClassifier", tiny())


def test_all_that_scikit_learn_runs_by_itself():
    with pytest.warns(UserWarning, match="Can't test estimator"):
        results = checks.check_estimator(tiny(), on_fail=None, on_skip=None)
    assert results
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.long
def test_cross_validation_on_digits(digits):
    images, labels = digits
    scores = cross_val_score(tiny(epochs=25, learning_rate=3e-3), images[:900], labels[:900], cv=3)
    assert scores.shape == (3,)
    assert scores.min() > 0.4, "chance is 0.1"


def test_in_a_pipeline_and_a_search(digits):
    images, labels = digits
    pipeline = make_pipeline(FunctionTransformer(lambda table: table.reshape(-1, 8, 8)), tiny())
    table = images[:60].reshape(60, 64)
    assert pipeline.fit(table, labels[:60]).predict(table).shape == (60,)
    search = GridSearchCV(tiny(epochs=1), {"learning_rate": [1e-3, 1e-2]}, cv=2).fit(images[:60], labels[:60])
    assert set(search.best_params_) == {"learning_rate"}


def test_probabilities_predictions_and_score_agree(fitted, digits):
    images, labels = digits
    shares = fitted.predict_proba(images[:50])
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-5)
    predicted = fitted.predict(images[:50])
    np.testing.assert_array_equal(predicted, fitted.classes_[shares.argmax(1)])
    assert fitted.score(images[:50], labels[:50]) == pytest.approx((predicted == labels[:50]).mean())
    only_first = np.eye(50)[0]
    assert fitted.score(images[:50], labels[:50], sample_weight=only_first) == (predicted[0] == labels[0])
    assert is_classifier(fitted)


def test_it_learns_from_what_it_is_given():
    rng = np.random.default_rng(0)
    dark, light = rng.uniform(0, 0.3, (40, 8, 8, 3)), rng.uniform(0.6, 1, (40, 8, 8, 3))
    images, labels = np.concatenate([dark, light]), np.array(["night"] * 40 + ["day"] * 40)
    model = tiny(epochs=10).fit(images, labels)
    assert list(model.classes_) == ["day", "night"]
    assert model.score(images, labels) == 1
    np.testing.assert_array_equal(model.predict(light[:2]), ["day", "day"])


def test_bytes_floats_colours_and_files_are_the_same_images(fitted, digits, tmp_path):
    images = np.round(digits[0][:6] * 255).astype(np.uint8)
    expected = fitted.predict_proba(images)
    paths = [tmp_path / f"{number}.png" for number in range(6)]
    for image, path in zip(images, paths, strict=True):
        Image.fromarray(image).save(path)
    for same in (images / 255, np.repeat(images[..., None], 3, 3), images.astype(int), list(images), paths,
                 [str(path) for path in paths], np.array([str(path) for path in paths])):  # fmt: skip
        np.testing.assert_allclose(fitted.predict_proba(same), expected, rtol=1e-5)
    labels = np.arange(6) % 2
    ours, theirs = (tiny(epochs=3).fit(given, labels).predict_proba(images) for given in (images, paths))
    np.testing.assert_array_equal(ours, theirs)


def test_the_seed_decides_all(digits):
    images, labels = digits[0][:60], digits[1][:60]
    one, same, other = (tiny(random_state=seed).fit(images, labels).predict_proba(images) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_it_starts_from_trained_weights(fitted, digits, tmp_path):
    vitlab.save_model(fitted.model_, tmp_path / "weights")
    images, labels = digits[0][:40], digits[1][:40] % 2
    model = tiny(init_from=tmp_path / "weights", options=None, image_size=None, learning_rate=1e-7).fit(images, labels)
    before, after = (m.model_.blocks[0].mlp.fc1.weight.detach() for m in (fitted, model))
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert model.predict_proba(images).shape == (40, 2)
    with pytest.raises(UserError, match="options cannot change"):
        tiny(init_from=tmp_path / "weights").fit(images, labels)


def test_a_recipe_decides_how_to_train(digits):
    images, labels = digits[0][:64], digits[1][:64]
    recipe = Recipe(steps=1, batch_size=64, checkpoint_every=0)
    still = tiny(
        recipe=recipe.model_copy(update=dict(optimizer=recipe.optimizer.model_copy(update={"learning_rate": 1e-9})))
    )
    np.testing.assert_allclose(still.fit(images, labels).predict_proba(images), 0.1, atol=1e-3)


def test_a_clone_is_unfitted_and_equal(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError, match="call fit"):
        copy.predict(np.zeros((1, 8, 8)))
    assert repr(vitlab.ViTClassifier(epochs=3)) == "ViTClassifier(epochs=3)"


def test_a_fitted_one_survives_being_pickled(fitted, digits):
    images = digits[0][:5]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (np.zeros((4, 64)), [0, 1, 0, 1], "a table of features is no image"),
        (np.zeros((4, 8, 8, 4)), [0, 1, 0, 1], "give images as"),
        (np.zeros((4, 8, 8)) + 16, [0, 1, 0, 1], "floats from 0 to 1"),
        (np.full((4, 8, 8), np.nan), [0, 1, 0, 1], "no NaN"),
        (np.full((4, 8, 8), 256), [0, 1, 0, 1], "bytes from 0 to 255"),
        (np.full((4, 8, 8), 1j), [0, 1, 0, 1], "values of type"),
        (np.zeros((4, 8, 8)), [0, 1, 0], "4 images and 3 labels"),
        (np.zeros((4, 8, 8)), [[0], [1], [0], [1]], "one label for each"),
        (np.zeros((0, 8, 8)), [], "no images"),
        (np.zeros((4, 8, 8)), [1, 1, 1, 1], "class"),
        (["/nowhere.png"] * 4, [0, 1, 0, 1], "nowhere"),
    ],
)
def test_what_cannot_be_learned_from_is_said(images, labels, said):
    with pytest.raises(UserError, match=said):
        tiny().fit(images, labels)


def test_an_unknown_parameter_is_said():
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        tiny().set_params(epoch=3)


def test_scikit_learn_is_not_needed():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, vitlab\n"
        "size = dict(hidden=8, layers=1, heads=1, mlp=8)\n"
        "model = vitlab.ViTClassifier('ViT-Ti/2', image_size=4, options=size, epochs=1, device='cpu')\n"
        "try: model.predict(np.zeros((2, 4, 4)))\n"
        "except ValueError as error: assert 'call fit' in str(error)\n"
        "print(model.fit(np.random.rand(8, 4, 4), [0, 1] * 4).predict(np.zeros((2, 4, 4))).shape)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "(2,)"


def test_a_recipe_also_says_how_images_are_prepared():
    recipe = with_changes(library.load_recipe("demo-upstream"), ["steps=1", "batch_size=4", "objective.head_bias=-3"])
    recipe = with_changes(recipe, ["preprocessing.mean=[0.1, 0.2, 0.3]", "optimizer.learning_rate=1e-9"])
    images, labels = np.zeros((6, 8, 8, 3), np.uint8), np.arange(6) % 2
    fitted = tiny(recipe=recipe).fit(images, labels)
    assert fitted.model_.preprocessing.mean == (0.1, 0.2, 0.3)
    assert fitted.model_.head.bias.tolist() == pytest.approx([-3, -3], abs=1e-3)
