"""A named recipe with what a reader wants to know beside it: command, cost, what to expect and from where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vitlab.recipes import cost, vtab, zoo
from vitlab.recipes.configs import ModelConfig
from vitlab.recipes.schema import Recipe

JFT, IMAGENET_21K, IMAGENET = 303_000_000, 14_000_000, 1_281_167  # training images, as the paper counts them


@dataclass(frozen=True)
class NamedData:
    """What is known of a data set without opening it.

    Attributes:
        classes: how many there are.
        images: in its training set; None where releases differ.
    """

    classes: int
    images: int | None = None


NAMED_DATA = {
    "fashion-mnist": NamedData(10, 6_000),
    "fashion-mnist-full": NamedData(10, 60_000),
    "digits": NamedData(10, 1_297),
    "imagenet": NamedData(1000, IMAGENET),
    "imagenet-21k": NamedData(21_843, IMAGENET_21K),
    "cifar10": NamedData(10, 50_000),
    "cifar100": NamedData(100, 50_000),
    "pets": NamedData(37, 3_680),
    "flowers": NamedData(102, 2_040),
    "caltech": NamedData(102),
    "cars": NamedData(196),
    "dtd": NamedData(47),
    "uc_merced": NamedData(21, 1_000),
    "birds": NamedData(200),
    "col_hist": NamedData(8, 2_000),
    **{f"vtab/{task.name}": NamedData(task.classes, 1_000) for task in vtab.TASKS},
}


def named_data(source: str) -> NamedData | None:
    """What is known of a recipe's source, NAME or NAME=PATH; None for folders, shards, and data sets of the hub."""
    return NAMED_DATA.get(source.partition("=")[0])


UTILISATION = 0.4  # the paper's runs reached 32 to 43 % of a core's peak
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Entry:
    """A named recipe.

    Attributes:
        recipe: every choice of the run.
        verb: how it is run: "pretrain", or "finetune" from some weights.
        images: in the training set that its cost is counted for; None if model or data are the user's.
        expected: a score and who published or measured it, or "not measured".
        chosen: what the source does not say and was chosen here.
    """

    recipe: Recipe
    verb: str = "pretrain"
    images: int | None = None
    expected: str = NOT_MEASURED
    chosen: str = ""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe.name

    @property
    def command(self) -> str:
        """What a user types."""
        data = "" if self.recipe.data.source else " --data SOURCE"
        if self.verb == "finetune":
            return f"vitlab finetune MODEL --recipe {self.name}{data}"
        return f"vitlab pretrain {self.name}{data}"

    @property
    def exaflops(self) -> float | None:
        """Compute of the complete run in 10**18 FLOPs (see `cost.exaflops`); None if it depends on the user."""
        if self.images is None:
            return None
        steps = self.recipe.total_steps(trained_on(self.recipe, self.images))
        return cost.exaflops(model_of(self.recipe), steps, self.recipe.batch_size)

    @property
    def core_days(self) -> float | None:
        """TPUv3-core-days of the complete run at `UTILISATION` of the peak."""
        return None if self.exaflops is None else cost.tpu_v3_core_days(self.exaflops, UTILISATION)

    @property
    def cost(self) -> str:
        """The cost as a sentence."""
        if self.exaflops is None or self.core_days is None:
            return "depends on the model and the data"
        size = f"{self.recipe.model.name}, {self.images:,} training images"
        return (
            f"{figure(self.exaflops)} exaFLOPs, {figure(self.core_days)} TPUv3-core-days at "
            f"{UTILISATION:.0%} of the peak ({size})"
        )

    def description(self) -> str:
        """What `vitlab recipes show` prints above the recipe."""
        lines = [
            f"{self.recipe.about[0].upper()}{self.recipe.about[1:]}.",
            "",
            f"Command: `{self.command}`",
            f"Cost: {self.cost}",
            f"Expected: {self.expected}",
            *([f"Chosen here: {self.chosen}"] if self.chosen else []),
        ]
        return "\n".join(lines)


Makers = Mapping[str, Callable[[], Entry]]  # recipes by name, each made only when it is asked for


def model_of(
    recipe: Recipe, *, name: str | None = None, image_size: int | None = None, classes: int | None = None
) -> ModelConfig:
    """The model that a recipe trains; its head has an output for every class of the data, as in the run.

    Args:
        recipe: names the model and the data.
        name: of another model.
        image_size: another one, in pixels.
        classes: of the data, where the data set is not a named one; the model's own number if neither does.

    Raises:
        UserError: an unknown model, or values that do not fit together.
    """
    spec, known = recipe.model, named_data(recipe.data.source)
    options: dict[str, object] = dict(spec.options)
    size = image_size or spec.image_size
    if size is not None:
        options["image_size"] = size
    outputs = classes if known is None else known.classes
    if outputs is not None:
        options["num_classes"] = outputs
    return zoo.configure(name or spec.name, options)


def trained_on(recipe: Recipe, images: int) -> int:
    """How many of a data set's training images a recipe trains on; the rest is left out, or held out to measure on."""
    return max(1, round(images * recipe.data.share * (1 - recipe.validation.share)))


def figure(value: float) -> str:
    """Three figures, without an exponent where that reads well."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def slug(model: str) -> str:
    """A model's name as part of a recipe's: "R50+ViT-B/16" is "r50+vit-b16"."""
    return model.lower().removeprefix("bit-").replace("/", "")
