"""What `vitlab cost` is asked about: a model, or the model, images and length of a recipe or a run."""

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
WAYS = "`vitlab models` and `vitlab recipes` list them; a recipe's TOML file or a run's folder works too"


@dataclass(frozen=True)
class Changes:
    """What is asked otherwise than the model or the recipe has it; none keeps it.

    Attributes:
        model: the one that a recipe trains.
        image_size: in pixels.
        epochs: passes over the training images.
        images: in the training set.
        batch: images at once.
    """

    model: str | None = None
    image_size: int | None = None
    epochs: float | None = None
    images: int | None = None
    batch: int | None = None


@dataclass(frozen=True)
class Asked:
    """What is asked about.

    Attributes:
        name: as the user wrote it.
        epochs: of training; none where the number of images is not known.
        images: in the training set; none where not known.
        steps: of training, where the recipe counts these.
        at_once: images that go through the model together.
        recipe: where one was named.
        notes: what a reader should know.
    """

    name: str
    config: ModelConfig
    epochs: float | None
    images: int | None
    steps: int | None
    at_once: int
    recipe: Recipe | None
    notes: tuple[str, ...]

    @property
    def exaflops(self) -> float:
        """Of the whole training."""
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
    """So many of something in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def asked_of(name: str, changes: Changes) -> Asked:
    """What the user asks about.

    Args:
        name: of a model or a recipe, a recipe's TOML file, or a run's folder.
        changes: what is to be otherwise.

    Raises:
        UserError: an unknown name, sizes that do not fit, or images that cannot be counted.
    """
    recipe = _recipe_of(name)
    if recipe is None and changes.model is not None:
        raise UserError(f"--model {changes.model}: it is for a recipe, and {name} is a model itself; leave one out")
    asked = _model(name, changes) if recipe is None else _run(name, recipe, changes)
    check_size(name, asked.config)
    return asked


def check_size(name: str, config: ModelConfig) -> None:
    """Refuses images of absurd sizes."""
    if max(config.image_hw) > LARGEST_SIDE:
        size = " x ".join(f"{side:,}" for side in config.image_hw)
        raise UserError(f"{name} at {size} pixels: give an image size of at most {LARGEST_SIDE:,}")


def _recipe_of(name: str) -> Recipe | None:
    """The recipe that is meant; none where it is a model."""
    if library.entry(name) is not None or name.endswith(".toml"):
        return library.load_recipe(name)
    if zoo.is_known(name):
        return None
    if Path(name).is_dir():
        if not (Path(name) / RECIPE).is_file():
            raise UserError(f"{name}: this folder is not a run's, it has no {RECIPE}; name a model or a recipe")
        return library.load_recipe(str(Path(name) / RECIPE))
    raise unknown_name("model or recipe", name, [*zoo.names(), *library.names()], listing=WAYS)


def _model(name: str, changes: Changes) -> Asked:
    config = zoo.configure(name, {} if changes.image_size is None else {"image_size": changes.image_size})
    epochs, images = changes.epochs or EPOCHS, changes.images or JFT
    return Asked(name, config, epochs, images, None, changes.batch or 1, None, (_own_head(config),))


def _run(name: str, recipe: Recipe, changes: Changes) -> Asked:
    if recipe.init_from is not None and changes.model is None:
        raise UserError(f"{name}: it starts from weights, so its model is not known; add --model NAME")
    data = _data_of(name, recipe, changes.images)
    config = model_of(recipe, name=changes.model, image_size=changes.image_size, classes=data.classes)
    epochs, images, steps = changes.epochs or recipe.epochs, data.images, None
    if changes.epochs is None and recipe.steps is not None:
        steps = recipe.steps
        epochs = None if images is None else steps * recipe.batch_size / images
    elif images is None:
        raise UserError(f"{name}: how many images an epoch has is not known{data.why}; add --images NUMBER")
    notes = () if data.classes is not None else (_own_head(config),)
    at_once, cut = _at_once(recipe) if changes.batch is None else (changes.batch, ())
    return Asked(name, config, epochs, images, steps, at_once, recipe, (*notes, *cut))


def _own_head(config: ModelConfig) -> str:
    return f"Classes: {config.num_classes:,} are counted, the model's own number; how many the data has is not known."


def _at_once(recipe: Recipe) -> tuple[int, tuple[str, ...]]:
    """Images that go through together on one device, and how a batch is cut."""
    parts, whole = recipe.scale.accumulation, recipe.batch_size
    if parts == "auto":
        return whole, ('Memory is of a whole batch; accumulation = "auto" cuts one that does not fit into parts.',)
    if parts == 1:
        return whole, ()
    cut = min(parts, whole)
    return -(-whole // cut), (f"A batch of {counted(whole, 'image')} is learned from in {cut:,} parts.",)


@dataclass(frozen=True)
class _Data:
    """A run's data: how many classes and images, and why the images are not known."""

    classes: int | None
    images: int | None
    why: str = ""


def _data_of(name: str, recipe: Recipe, images: int | None) -> _Data:
    """What is known of the data; it is opened only where no table knows it, and from elsewhere only where it must."""
    source, entry = recipe.data.source, library.entry(name)
    known = named_data(source)
    classes, count = (None, None) if known is None else (known.classes, known.images)
    if entry is not None and entry.images is not None:
        count = entry.images
    must = count is None and images is None and recipe.epochs is not None
    why = ""
    if source and (must or ((classes is None or count is None) and "://" not in source)):
        from vitlab.datasets.catalog import open_source

        try:
            opened = open_source(source, "train")
            classes, count = len(opened.classes), len(opened)
        except UserError as error:
            why = f" ({error})"
    whole = None if count is None else trained_on(recipe, count)
    return _Data(classes, images or whole, why)
