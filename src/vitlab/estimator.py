"""A Vision Transformer as a scikit-learn classifier: `fit`, `predict`, `predict_proba`, `score` over images.

It works in pipelines, searches and cross-validation; scikit-learn itself is not needed to use it.
"""

import inspect
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vitlab.data.arrays import count, source_of
from vitlab.errors import Interrupted, UserError
from vitlab.evaluation.accuracy import measure
from vitlab.models.build import Model, build
from vitlab.recipes import zoo
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.schema import ModelSpec, OptimizerConfig, Recipe, ScheduleConfig, from_values
from vitlab.runner import Splits, run
from vitlab.runtime import choose, seeded

WARMUP_SHARE = 0.1
DEFAULT_MODEL = "ViT-Ti/16"


class ViTClassifier:
    """A Vision Transformer that learns to classify images.

    Images are given as an array (images, height, width) or (images, height, width, 3), bytes or floats from 0 to 1, or
    as a list of paths of image files; labels are anything that can be sorted. Training is `vitlab.run`, so the
    same `random_state` gives the same weights on the same machine.

    Args:
        model: a name, such as "ViT-S/16" (`vitlab.list_models()` has all), or a configuration; None is the recipe's
            model, or ViT-Ti/16.
        init_from: trained weights to start from instead, in any format that `vitlab.load_model` knows; the head starts
            at zero.
        image_size: what images are resized to, an int or (height, width); None is the recipe's, or that of the weights,
            or 224.
        options: fields of the model's configuration to set, such as {"layers": 4}; None is the recipe's.
        recipe: how to train, see `vitlab.load_recipe`; the images given to `fit` replace its `data.source`.
        epochs: passes over the images; like the three below it belongs to training without a recipe.
        batch_size: images per update; all of them if they are fewer.
        learning_rate: AdamW's peak, reached after a tenth of the updates; then a cosine leads to 0.
        weight_decay: AdamW's.
        random_state: seed of every random draw; None is the recipe's, or 0.
        device: "auto", "cuda", "mps" or "cpu".

    Attributes:
        classes_: the labels, sorted, (classes,).
        model_: the trained model.
        n_images_: how many images were given.
    """

    def __init__(
        self,
        model: str | ModelConfig | None = None,
        *,
        init_from: str | Path | None = None,
        image_size: int | tuple[int, int] | None = None,
        options: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        epochs: float = 20,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        random_state: int | None = None,
        device: str = "auto",
    ) -> None:
        # scikit-learn's rule: parameters are kept as given, and checked when they are used.
        self.model = model
        self.init_from = init_from
        self.image_size = image_size
        self.options = options
        self.recipe = recipe
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: ArrayLike) -> "ViTClassifier":
        """Learn from images and their labels, from the start each time.

        Args:
            X: images, see the class.
            y: a label for each, (images,).

        Returns:
            itself.

        Raises:
            UserError: images or labels that cannot be used, or parameters that do not fit together.
            TrainingFailed: the loss is not a number any more; try a smaller learning rate.
        """
        labels_N = _labels(y)
        self.classes_, numbers_N = np.unique(labels_N, return_inverse=True)
        names = [str(label) for label in self.classes_]
        source = source_of(X, names, numbers_N.astype(np.int64))
        recipe = self._resolved(len(source))
        config = self.model
        given = _built(config, recipe, len(names)) if isinstance(config, ViTConfig | ResNetConfig) else None
        with tempfile.TemporaryDirectory() as folder:
            try:
                out = Path(folder) / "run"
                done = run(recipe, out, data=Splits(source), model=given, device=self.device, title=None)
            except Interrupted:
                raise KeyboardInterrupt from None
        self.model_ = done.model.eval()
        self.n_images_ = len(source)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """The probability of each class, (images, classes), in the order of `classes_`.

        Raises:
            UserError: it was not fitted, or images that cannot be used.
        """
        model, runtime = self._fitted(), choose(self.device)
        names = [str(label) for label in self.classes_]
        source = source_of(X, names, np.zeros(count(X), np.int64))
        return measure(model, source, model.preprocessing, runtime).probabilities_NK

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of each image, (images,)."""
        best_N = self.predict_proba(X).argmax(axis=1)
        predicted_N: NDArray[Any] = self.classes_[best_N]
        return predicted_N

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The share of images that are classified correctly, weighted by `sample_weight` if it is given."""
        right_N = self.predict(X) == _labels(y)
        return float(np.average(right_N, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; none of them is an estimator, so `deep` changes nothing."""
        return {name: getattr(self, name) for name in _parameters()}

    def set_params(self, **params: Any) -> "ViTClassifier":
        """Change parameters by name.

        Raises:
            UserError: there is no such parameter.
        """
        for name, value in params.items():
            if name not in _parameters():
                known = ", ".join(_parameters())
                raise UserError(f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: {known}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The parameters that differ from their defaults."""
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, default in _parameters().items()
            if repr(getattr(self, name)) != repr(default)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it can predict; scikit-learn asks."""
        return "model_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        """What kind of estimator it is; only scikit-learn asks, so it is there to be imported."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags  # type: ignore[import-untyped]

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True, string=True),
        )

    def _resolved(self, images: int) -> Recipe:
        """The recipe with the parameters that are given in place of its keys."""
        if self.model is not None and self.init_from is not None:
            raise UserError("give either model or init_from: weights have a model of their own")
        recipe = self._default_recipe(images) if self.recipe is None else self._checked(self.recipe)
        spec = {
            "name": self.model if isinstance(self.model, str) else None,
            "image_size": self.image_size,
            "options": None if self.options is None else dict(self.options),
        }
        values = {**recipe.model.model_dump(), **{key: value for key, value in spec.items() if value is not None}}
        changed = {"seed": self.random_state, "init_from": None if self.init_from is None else str(self.init_from)}
        given = {key: value for key, value in changed.items() if value is not None}
        return from_values({**recipe.model_dump(), **given, "model": values}, "ViTClassifier")

    def _default_recipe(self, images: int) -> Recipe:
        size = min(self.batch_size, images)
        steps = max(1, round(self.epochs * images / size))
        optimizer = OptimizerConfig(learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        return Recipe(
            name="estimator", steps=steps, batch_size=size, checkpoint_every=0, model=ModelSpec(name=DEFAULT_MODEL),
            optimizer=optimizer, schedule=ScheduleConfig(warmup_steps=round(WARMUP_SHARE * steps)),
        )  # fmt: skip

    def _checked(self, recipe: Recipe) -> Recipe:
        """Refuse what would have no effect."""
        for name in ("epochs", "batch_size", "learning_rate", "weight_decay"):
            if getattr(self, name) != _parameters()[name]:
                raise UserError(f"{name} has no effect beside a recipe: set it in the recipe")
        if recipe.log != "none":
            raise UserError(f"log={recipe.log} has no effect here: ViTClassifier keeps no run; take vitlab.run instead")
        return recipe

    def _fitted(self) -> Model:
        if not self.__sklearn_is_fitted__():
            raise _not_fitted(f"this {type(self).__name__} is not fitted yet; call fit(images, labels) first")
        return self.model_


def _built(config: ModelConfig, recipe: Recipe, classes: int) -> Model:
    """A new model of the given configuration; it starts as the recipe's seed says."""
    options: dict[str, object] = {**recipe.model.options, "num_classes": classes}
    if recipe.model.image_size is not None:
        options["image_size"] = recipe.model.image_size
    with seeded(recipe.seed, "initialisation"):
        return build(zoo.configure(config, options))


def _parameters() -> dict[str, Any]:
    """The parameters' names and defaults."""
    found = inspect.signature(ViTClassifier.__init__).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.name != "self"}


def _not_fitted(message: str) -> Exception:
    """Scikit-learn's own error where it is installed, because its tools look for that."""
    try:
        from sklearn.exceptions import NotFittedError  # type: ignore[import-untyped]
    except ImportError:
        return UserError(message)
    error: Exception = NotFittedError(message)
    return error


def _labels(y: ArrayLike) -> NDArray[Any]:
    labels_N = np.asarray(y)
    if labels_N.ndim != 1:
        raise UserError(f"y has the shape {labels_N.shape}: give one label for each image, (images,)")
    return labels_N
