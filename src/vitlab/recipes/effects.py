"""Keys of a recipe that have an effect beside some values of other keys only: setting one of them else is a mistake."""

from collections.abc import Iterable

from vitlab.errors import UserError
from vitlab.recipes.schema import Recipe

# key -> (the key that decides, its values beside which the first one has an effect)
DEPENDS_ON = {
    "augmentation.area": ("augmentation.crop", ("inception",)),
    "augmentation.aspect": ("augmentation.crop", ("inception",)),
    "augmentation.pad": ("augmentation.crop", ("pad",)),
    "augmentation.enlarge": ("augmentation.crop", ("random",)),
    "optimizer.beta1": ("optimizer.kind", ("adamw",)),
    "optimizer.beta2": ("optimizer.kind", ("adamw",)),
    "schedule.milestones": ("schedule.decay", ("staircase",)),
    "schedule.factor": ("schedule.decay", ("staircase",)),
    "schedule.end_learning_rate": ("schedule.decay", ("linear", "cosine")),
}


def value_at(recipe: Recipe, key: str) -> object:
    """What a recipe has at a dotted key; None if there is no such key."""
    value: object = recipe.model_dump()
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def refuse_without_effect(recipe: Recipe, keys: Iterable[str]) -> None:
    """Refuse keys that were set and do nothing in this recipe.

    Raises:
        UserError: one of `keys` has no effect beside the recipe's other values.
    """
    for key in keys:
        if key == "model.name" and recipe.init_from is not None:
            raise UserError(
                f"model.name has no effect beside init_from={recipe.init_from}: weights have a model already"
            )
        if key == "augmentation.randaugment_magnitude" and not recipe.augmentation.randaugment_layers:
            raise UserError(f"{key} has no effect beside augmentation.randaugment_layers=0: set that as well")
        if key in DEPENDS_ON:
            decisive, values = DEPENDS_ON[key]
            if value_at(recipe, decisive) not in values:
                raise UserError(
                    f"{key} has no effect beside {decisive}={value_at(recipe, decisive)}; "
                    f"it belongs to {' and '.join(values)}"
                )
