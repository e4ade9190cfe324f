"""The training that `vitlab cost` counts: of a model, or the model, images and length of a recipe or a run."""

from dataclasses import dataclass
from pathlib import Path

from vitlab.errors import UserError, unknown_name
from vitlab.recipes import cost, library, zoo
from vitlab.recipes.configs import ModelConfig
from vitlab.recipes.entries import JFT, model_of, named_data, trained_on
from vitlab.recipes.schema import Recipe
from vitlab.training.run_directory import RECIPE

LARGEST_SIDE = 16_384
EPOCHS = 7  # with JFT's images the shortest runs of the paper's Table 6
WAYS = "`vitlab models` and `vitlab recipes` list them; a recipe's TOML file or a run's directory works too"


@dataclass(frozen=True)
class Overrides:
    """Values that replace those of the model or the recipe; None keeps them.

    Attributes:
        model: that a recipe trains.
        image_size: in pixels.
        epochs: passes over the training images.
        images: in the training set.
        batch: images at once on one device.
    """

    model: str | None = None
    image_size: int | None = None
    epochs: float | None = None
    images: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class CostedTraining:
    """A training whose cost is counted.

    Attributes:
        name: as the user wrote it.
        epochs: of training; None where the number of images is not known.
        images: in the training set; None where not known.
        steps: of training, if the recipe gives them.
        microbatch: images that go through the model at once, on one device.
        recipe: if one was named.
        notes: for the reader.
    """

    name: str
    config: ModelConfig
    epochs: float | None
    images: int | None
    steps: int | None
    microbatch: int
    recipe: Recipe | None
    notes: tuple[str, ...]

    @property
    def exaflops(self) -> float:
        """Of the complete training."""
        if self.steps is not None and self.recipe is not None:
            return cost.exaflops(self.config, self.steps, self.recipe.batch_size)
        assert self.epochs is not None
        assert self.images is not None
        return cost.exaflops(self.config, self.epochs, self.images)

    @property
    def length(self) -> str:
        """How long the training is, in words."""
        epochs = None if self.images is None else f"{self.epochs:g} epochs of {counted(self.images, 'image')}"
        if self.steps is None or self.recipe is None:
            return epochs or ""
        steps = f"{counted(self.steps, 'step')} of {counted(self.recipe.batch_size, 'image')}"
        return steps if epochs is None else f"{steps}, {epochs}"


def counted(number: int, noun: str) -> str:
    """A number of things in words, such as "1,000 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def costed_training(name: str, changes: Overrides) -> CostedTraining:
    """The training whose cost the user wants.

    Args:
        name: of a model or a recipe, a recipe's TOML file, or a run's directory.
        changes: options of the command line.

    Raises:
        UserError: an unknown name, sizes that do not fit, or images that cannot be counted.
    """
    recipe = _recipe_of(name)
    if recipe is None and changes.model is not None:
        raise UserError(f"--model {changes.model}: it is for recipes, and {name} is a model; leave out one of the two")
    training = _of_model(name, changes) if recipe is None else _of_recipe(name, recipe, changes)
    check_size(name, training.config)
    return training


def check_size(name: str, config: ModelConfig) -> None:
    """Refuses images larger than `LARGEST_SIDE`."""
    if max(config.image_hw) > LARGEST_SIDE:
        size = " x ".join(f"{side:,}" for side in config.image_hw)
        raise UserError(f"{name} at {size} pixels: give an image size of at most {LARGEST_SIDE:,}")


def _recipe_of(name: str) -> Recipe | None:
    """The recipe that `name` means; None if it is a model."""
    if library.entry(name) is not None or name.endswith(".toml"):
        return library.load_recipe(name)
    if zoo.is_known(name):
        return None
    if Path(name).is_dir():
        if not (Path(name) / RECIPE).is_file():
            raise UserError(f"{name}: not a run's directory: it has no {RECIPE}; name a model or a recipe")
        return library.load_recipe(Path(name) / RECIPE)
    raise unknown_name("model or recipe", name, [*zoo.names(), *library.names()], listing=WAYS)


def _of_model(name: str, changes: Overrides) -> CostedTraining:
    config = zoo.configure(name, {} if changes.image_size is None else {"image_size": changes.image_size})
    epochs, images = changes.epochs or EPOCHS, changes.images or JFT
    return CostedTraining(name, config, epochs, images, None, changes.batch or 1, None, (_own_head(config),))


def _of_recipe(name: str, recipe: Recipe, changes: Overrides) -> CostedTraining:
    if recipe.init_from is not None and changes.model is None:
        raise UserError(f"{name}: it starts from weights, so that its model is not known; add --model NAME")
    data = _data_of(name, recipe, changes.images)
    config = model_of(recipe, name=changes.model, image_size=changes.image_size, classes=data.classes)
    epochs, images, steps = changes.epochs or recipe.epochs, data.images, None
    if changes.epochs is None and recipe.steps is not None:
        steps = recipe.steps
        epochs = None if images is None else steps * recipe.batch_size / images
    elif images is None:
        raise UserError(f"{name}: the number of training images is not known{data.why}; add --images NUMBER")
    notes = () if data.classes is not None else (_own_head(config),)
    microbatch, cut = _microbatch(recipe) if changes.batch is None else (changes.batch, ())
    return CostedTraining(name, config, epochs, images, steps, microbatch, recipe, (*notes, *cut))


def _own_head(config: ModelConfig) -> str:
    return f"Classes: {config.num_classes:,}, the model's default; the number of classes of the data is not known."


def _microbatch(recipe: Recipe) -> tuple[int, tuple[str, ...]]:
    """Images that go through the model at once on one device, and a note on how a batch is divided."""
    wanted, batch = recipe.scale.accumulation, recipe.batch_size
    if wanted == "auto":
        note = 'Memory is for a complete batch; accumulation = "auto" divides one that does not fit into microbatches.'
        return batch, (note,)
    count = min(wanted, batch)
    if count == 1:
        return batch, ()
    return -(-batch // count), (f"A batch of {counted(batch, 'image')} is divided into {count:,} microbatches.",)


@dataclass(frozen=True)
class _Data:
    """A run's data: how many classes and images, and why the number of images is not known."""

    classes: int | None
    images: int | None
    why: str = ""


def _data_of(name: str, recipe: Recipe, images: int | None) -> _Data:
    """What is known of the data, which is opened only if no table has it; remote data only if there is no other way."""
    source, entry = recipe.data.source, library.entry(name)
    known = named_data(source)
    classes, count = (None, None) if known is None else (known.classes, known.images)
    if entry is not None and entry.images is not None:
        count = entry.images
    must_open = count is None and images is None and recipe.epochs is not None
    why = ""
    if source and (must_open or ((classes is None or count is None) and "://" not in source)):
        from vitlab.datasets.catalog import open_source

        try:
            opened = open_source(source, "train")
            classes, count = len(opened.classes), len(opened)
        except UserError as error:
            why = f" ({error})"
    trained = None if count is None else trained_on(recipe, count)
    return _Data(classes, images or trained, why)
