"""The model that a run starts from: new by its recipe's seed, or trained weights and a new head (paper: sec. 3.2)."""

from dataclasses import replace

from torch import nn

from vitlab import weights
from vitlab.errors import UserError
from vitlab.models import build
from vitlab.models.build import Model
from vitlab.recipes import zoo
from vitlab.recipes.schema import Recipe
from vitlab.runtime import seeded


def initial_model(recipe: Recipe, classes: tuple[str, ...], given: Model | None = None) -> Model:
    """The recipe's model before its first update, on the CPU.

    Args:
        recipe: says which model, or which weights, and how its images are prepared.
        classes: names of the classes; the head has as many outputs.
        given: a model to start from, with its head; None makes or loads one.

    Raises:
        UserError: weights that cannot be loaded, or options that do not fit.
    """
    if given is not None:
        return _as_recipe_says(_checked(given, recipe, len(classes)), recipe, classes)
    model = _from_weights(recipe, len(classes)) if recipe.init_from is not None else _new(recipe, len(classes))
    return _as_recipe_says(model, recipe, classes)


def _as_recipe_says(model: Model, recipe: Recipe, classes: tuple[str, ...]) -> Model:
    """The same model, with the head's bias, the preprocessing and the names of classes as the recipe says.

    The size of images is the model's; mean and standard deviation too, unless the recipe has its own.
    """
    head = build.classifier(model)
    if recipe.objective.head_bias and head is not None and head.bias is not None:
        nn.init.constant_(head.bias, recipe.objective.head_bias)
    part, given = recipe.preprocessing, model.preprocessing
    model.preprocessing = replace(
        given, resize=part.resize, crop=part.crop, interpolation=part.interpolation,
        mean=part.mean or given.mean, std=part.std or given.std,
    )  # fmt: skip
    model.classes = classes
    return model


def _checked(given: Model, recipe: Recipe, classes: int) -> Model:
    wanted, has = recipe.model.image_size, given.config.image_hw
    if wanted is not None and has != ((wanted, wanted) if isinstance(wanted, int) else tuple(wanted)):
        raise UserError(f"model.image_size={wanted} has no effect on a model of {has} pixels: leave it out")
    if given.config.num_classes != classes:
        raise UserError(
            f"the model has {given.config.num_classes} outputs and the data has {classes} classes; "
            f"give it a head that fits: vitlab.models.replace_head(model, {classes})"
        )
    return given


def _from_weights(recipe: Recipe, classes: int) -> Model:
    assert recipe.init_from is not None
    if recipe.model.options:
        raise UserError("model.options cannot change the shape of weights that are loaded; leave them out")
    model = weights.load_model(recipe.init_from, image_size=recipe.model.image_size)
    build.replace_head(model, classes)
    return model


def _new(recipe: Recipe, classes: int) -> Model:
    options: dict[str, object] = {**recipe.model.options, "num_classes": classes}
    if recipe.model.image_size is not None:
        options["image_size"] = recipe.model.image_size
    with seeded(recipe.seed, "initialisation"):
        return build.build(zoo.configure(recipe.model.name, options))
