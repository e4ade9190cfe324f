"""Every built-in recipe by name, the ones to start from among them; recipes read from TOML files."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitlab.errors import UserError, unknown_name
from vitlab.recipes import augreg, bit, pretrain, transfer
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.entries import Entry, Makers
from vitlab.recipes.schema import (
    DataConfig,
    ModelSpec,
    ObjectiveConfig,
    OptimizerConfig,
    PreprocessingConfig,
    Recipe,
    ScheduleConfig,
    from_toml,
)

LARGEST_FILE = 1_000_000


@dataclass(frozen=True)
class Family:
    """Recipes that belong together.

    Attributes:
        name: what a reader asks for.
        pattern: how its recipes' names are made; empty where each has its own.
        about: what they are, in a line.
        makers: its recipes by name; its docstring says more.
    """

    name: str
    pattern: str
    about: str
    makers: Callable[[], Makers]

    def entries(self) -> tuple[Entry, ...]:
        """All of its recipes."""
        return tuple(make() for make in self.makers().values())

    def description(self) -> str:
        """The docstring of its function."""
        return inspect.getdoc(self.makers) or ""


def demo_upstream() -> Recipe:
    """The first half of `vitlab demo`: a small ViT on the bundled Fashion-MNIST sample.

    Command: `vitlab pretrain demo-upstream`. Score: see benchmarks/results/demo.json.
    """
    return Recipe(
        name="demo-upstream",
        about="a small ViT from scratch on the bundled Fashion-MNIST sample",
        epochs=13,
        batch_size=96,
        # Patches of 7 pixels and small shifts: in a thousand updates a small ViT cannot learn to undo large ones.
        model=ModelSpec(name="ViT-Ti/7", image_size=28, options=dict(hidden=128, layers=4, heads=4, mlp=256)),
        data=DataConfig(source="fashion-mnist"),
        preprocessing=PreprocessingConfig(mean=(0.286,) * 3, std=(0.353,) * 3),
        augmentation=Augmentation(crop="pad", pad=1, flip=True),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=60),
    )


def fashion_mnist() -> Recipe:
    """A small ViT on the full Fashion-MNIST (60,000 images; Debian's package dataset-fashion-mnist).

    It suits two cores: 145,000 parameters and 17 tokens. Shape and learning rate were chosen on a tenth of the training
    images, held out. Command: `vitlab pretrain fashion-mnist`. Score: see benchmarks/results/fashion_mnist.json.
    """
    return Recipe(
        name="fashion-mnist",
        about="a small ViT from scratch on the whole Fashion-MNIST",
        epochs=5,
        batch_size=96,
        checkpoint_every=1000,
        model=ModelSpec(name="ViT-Ti/7", image_size=28, options=dict(hidden=64, layers=4, heads=2, mlp=128)),
        data=DataConfig(source="fashion-mnist-full"),
        preprocessing=PreprocessingConfig(mean=(0.286,) * 3, std=(0.353,) * 3),
        augmentation=Augmentation(crop="pad", pad=1, flip=True),
        optimizer=OptimizerConfig(learning_rate=3e-3, weight_decay=0.05, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=60),
    )


def scratch() -> Recipe:
    """A ViT-S/16 from scratch on any image folder: a start to change with `--set`.

    Command: `vitlab pretrain scratch --data FOLDER`. Score: not measured.
    """
    return Recipe(
        name="scratch",
        about="a ViT-S/16 from scratch on any data",
        epochs=90,
        batch_size=256,
        evaluate_every=500,
        model=ModelSpec(name="ViT-S/16", image_size=224),
        augmentation=Augmentation(crop="inception", flip=True),
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=500),
    )


def demo_downstream() -> Recipe:
    """The second half of `vitlab demo`: the upstream model on digits, at a higher resolution, averaged.

    Command: `vitlab finetune runs/demo/upstream --recipe demo-downstream`. Score: see benchmarks/results/demo.json.
    """
    return Recipe(
        name="demo-downstream",
        about="the upstream model on handwritten digits at a higher resolution, with Polyak averaging",
        steps=800,
        batch_size=64,
        averaging=0.98,
        model=ModelSpec(image_size=35),
        data=DataConfig(source="digits"),
        augmentation=Augmentation(crop="inception", area=(0.7, 1.0), flip=False),
        objective=ObjectiveConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(learning_rate=1.5e-3, weight_decay=0.1, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=60),
    )


def finetune() -> Recipe:
    """Any model on any image folder: a calm start that suits small data sets.

    Command: `vitlab finetune MODEL --data FOLDER`. Cost and score depend on model and data; not measured.
    """
    return Recipe(
        name="finetune",
        about="any model on any labelled images; the default of `vitlab finetune`",
        steps=300,
        batch_size=32,
        averaging=0.98,
        evaluate_every=100,
        checkpoint_every=100,
        augmentation=Augmentation(crop="inception", area=(0.35, 1.0), flip=True),
        optimizer=OptimizerConfig(learning_rate=3e-4, weight_decay=0.0, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=30),
    )


def starts() -> Makers:
    """Recipes that run on small machines, to begin with and to change."""
    return {
        "demo-upstream": lambda: Entry(demo_upstream(), images=6_000, expected="see benchmarks/results/demo.json"),
        "fashion-mnist": lambda: Entry(
            fashion_mnist(), images=60_000, expected="see benchmarks/results/fashion_mnist.json"
        ),
        "scratch": lambda: Entry(scratch()),
        "demo-downstream": lambda: Entry(demo_downstream(), "finetune", expected="see benchmarks/results/demo.json"),
        "finetune": lambda: Entry(finetune(), "finetune"),
    }


FAMILIES = (
    Family("starts", "", "small machines: to begin with, and to change", starts),
    Family("table3", "table3/MODEL-DATA-EPOCHSep", "the paper's pretraining, every row of Table 3", pretrain.table3),
    Family("table4", "table4/DATA", "the paper's fine-tuning, every row of Table 4", transfer.table4),
    Family("vtab", "vtab/TASK", "the paper's fine-tuning on VTAB's 19 tasks", transfer.vtab_tasks),
    Family(
        "augreg", "augreg/DATA-AUGMENTATION", "AugReg's pretraining (arXiv 2106.10270), any --model", augreg.pretraining
    ),
    Family("augreg-to", "augreg/to-DATA-STEPS", "AugReg's fine-tuning", augreg.transfer_runs),
    Family("plain", "plain/vit-s16-EPOCHSep", "a better plain ViT-S/16 on ImageNet (arXiv 2205.01580)", pretrain.plain),
    Family("bit", "bit/s, bit/m, bit/l", "BiT's pretraining (arXiv 1912.11370), any --model", bit.upstream),
    Family("hyperrule", "bit/hyperrule-STEPS-PIXELS", "BiT-HyperRule: fine-tuning without a search", bit.hyperrules),
)


def entries() -> list[Entry]:
    """All built-in recipes with what is known about them."""
    return [entry for family in FAMILIES for entry in family.entries()]


def names() -> list[str]:
    """The names of the built-in recipes; none of the recipes is made for that."""
    return [name for family in FAMILIES for name in family.makers()]


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        UserError: there is none.
    """
    for found in FAMILIES:
        if found.name == name:
            return found
    families = [found.name for found in FAMILIES]
    raise unknown_name("family of recipes", name, families, listing=f"they are {', '.join(families)}")


def entry(name: str) -> Entry | None:
    """The built-in recipe of that name with what is known about it, if there is one; no other recipe is made."""
    for family in FAMILIES:
        if name in (makers := family.makers()):
            return makers[name]()
    return None


def load_recipe(name_or_file: str | Path) -> Recipe:
    """A built-in recipe by its name, or the recipe in a TOML file.

    Args:
        name_or_file: such as "demo-upstream" or "mine.toml"; a `Path` is a file in any case.

    Raises:
        UserError: an unknown name (the nearest ones are given), or a file that cannot be read or is not a recipe.
    """
    if isinstance(name_or_file, str):
        found = entry(name_or_file)
        if found is not None:
            return found.recipe
    path = Path(name_or_file)
    if isinstance(name_or_file, Path) or path.suffix == ".toml" or path.is_file():
        return _read(path)
    raise unknown_name("recipe", name_or_file, names(), listing="`vitlab recipes` lists them; a TOML file works too")


def _read(path: Path) -> Recipe:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise UserError(f"recipe {path} has {size:,} bytes; a recipe has at most {LARGEST_FILE:,}")
        return from_toml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise UserError(f"cannot read recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"recipe {path} is not UTF-8 text") from None
