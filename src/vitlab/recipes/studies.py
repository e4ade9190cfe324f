"""Grids of recipes: the paper's ablations, and learning rates that are tried before a result counts. Values only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from vitlab.errors import unknown_name
from vitlab.recipes import augreg, bit, library, pretrain, transfer
from vitlab.recipes.augmentation import AUGREG, Augmentation
from vitlab.recipes.entries import NOT_MEASURED, Entry
from vitlab.recipes.library import load_recipe
from vitlab.recipes.schema import (
    DataConfig,
    EarlyStoppingConfig,
    ModelSpec,
    OptionValue,
    Recipe,
    ValidationConfig,
    with_changes,
)

THREE_SEEDS = (0, 1, 2)  # the paper's mean and deviation are of three runs


@dataclass(frozen=True)
class Sweep:
    """Which learning rates a recipe is tried with, and how what comes out is measured (paper: section 4.1, B.1.1).

    Each rate trains without the development split and is evaluated on it; the best one then trains on all training
    images, once per seed, and is evaluated on the test images.

    Attributes:
        recipe: all other choices.
        learning_rates: tried in this order; of equals the first one wins. None: the recipe's own, without trials.
        seeds: of the final runs; the first one is the trials', too.
        dev_share: of the training images, held out in the trials.
    """

    recipe: Recipe
    learning_rates: tuple[float, ...] = ()
    seeds: tuple[int, ...] = THREE_SEEDS
    dev_share: float = 0.1

    def trial(self, learning_rate: float) -> Recipe:
        """The run that tries a rate."""
        changes = [f"seed={self.seeds[0]}", f"validation.share={self.dev_share}"]
        return with_changes(self.recipe, [f"optimizer.learning_rate={learning_rate!r}", *changes])

    def final(self, learning_rate: float | None, seed: int) -> Recipe:
        """A run that counts, at the rate that was best."""
        rate = [] if learning_rate is None else [f"optimizer.learning_rate={learning_rate!r}"]
        return with_changes(self.recipe, [*rate, f"seed={seed}"])


@dataclass(frozen=True)
class StudyRow:
    """One line of a study: a sweep, and what the source reports for it ("" where it has no number)."""

    name: str
    sweep: Sweep
    published: str = ""


@dataclass(frozen=True)
class Study:
    """A grid of runs.

    Attributes:
        name: what a user types.
        about: what it asks, in a line.
        rows: the grid.
        published_is: what the numbers of the source are, since not all of them are top-1 on the test images.
        verb: "finetune" where it needs weights to start from.
        averaged: whether the mean over the rows is the result, as VTAB's score is.
    """

    name: str
    about: str
    rows: tuple[StudyRow, ...]
    published_is: str = ""
    verb: str = "pretrain"
    averaged: bool = False


def positions() -> Study:
    """Table 8 (App. D.4): which position embeddings, and where they are added, for ViT-B/16 on JFT.

    The paper's numbers are ImageNet 5-shot accuracy.
    """
    base = load_recipe("table3/vit-b16-jft-7ep")
    table = (
        ("none", "input", 0.61382),
        *(("learned", at, score) for at, score in _places(0.64206, 0.63964, 0.64292)),
        *(("learned2d", at, score) for at, score in _places(0.64001, 0.64046, 0.64022)),
        ("relative", "input", 0.64032),
    )
    rows = tuple(
        _row(f"{position}-{at}", _with_options(base, position=position, position_at=at), f"{score:.5f}")
        for position, at, score in table
    )
    return Study("table8", "position embeddings (Table 8)", rows, "ImageNet 5-shot accuracy")


def _places(*scores: float) -> tuple[tuple[str, float], ...]:
    return tuple(zip(("input", "every_layer", "every_layer_shared"), scores, strict=True))


def shapes() -> Study:
    """Fig. 8: which dimension of a ViT to scale; the figure has no numbers, and its exact factors are not published.

    The base has 8 layers, width 1024, MLP width 2048 and patches of 32 pixels.
    """
    shape: dict[str, OptionValue] = {"layers": 8, "hidden": 1024, "mlp": 2048, "heads": 16, "representation": 1024}
    start = load_recipe("table3/vit-b32-jft-7ep")
    base = start.model_copy(update={"model": ModelSpec(name="ViT-B/32", image_size=224, options=shape)})
    rows = [_row("base", base)]
    rows += [_row(f"layers-{count}", _with_options(base, layers=count)) for count in (1, 2, 4, 16, 32, 64)]
    rows += [_row(f"width-{size}", _with_options(base, hidden=size, representation=size)) for size in (256, 512, 2048)]
    rows += [_row(f"mlp-{width}", _with_options(base, mlp=width)) for width in (512, 1024, 4096, 8192)]
    rows += [_row(f"patch-{size}", _with_options(base, patch=size)) for size in (14, 16, 28, 56)]
    for factor in (0.25, 0.5, 2):
        width = round(1024 * factor)
        scaled: dict[str, OptionValue] = {
            "layers": round(8 * factor), "hidden": width, "mlp": 2 * width, "representation": width,
        }  # fmt: skip
        scaled["patch"] = {0.25: 56, 0.5: 56, 2: 16}[factor]
        rows.append(_row(f"all-x{factor:g}", _with_options(base, **scaled)))
    return Study("fig8", "which dimension to scale (Fig. 8)", tuple(rows))


def optimizers() -> Study:
    """Table 7: Adam or SGD for pretraining ResNets on JFT, with BiT's SGD.

    The paper's numbers are ImageNet top-1 after fine-tuning.
    """
    rows = []
    for model, adam, sgd in (("r50x1", 77.54, 78.24), ("r152x2", 84.97, 84.37)):
        base = load_recipe(f"table3/{model}-jft-7ep")
        rows.append(_row(f"{model}-adam", base, f"{adam}"))
        rows.append(_row(f"{model}-sgd", base.model_copy(update={"optimizer": bit.sgd()}), f"{sgd}"))
    return Study("table7", "Adam or SGD (Table 7)", tuple(rows), "ImageNet top-1 after fine-tuning")


def subsets() -> Study:
    """Fig. 4: how much data a model wants: 9, 30, 90 and all 303 million images of JFT, with early stopping.

    The paper's numbers are ImageNet 5-shot accuracy, drawn only. "ViT-b" is ViT-B with half the width of everything.
    """
    halved: dict[str, OptionValue] = {"hidden": 384, "mlp": 1536, "heads": 6, "representation": 384}
    vit_b32, others = load_recipe("table3/vit-b32-jft-7ep"), ("vit-b16", "vit-l32", "vit-l16", "r50x1", "r152x2")
    models = {
        "vit-b32": vit_b32,
        "vit-b32-halved": _with_options(vit_b32, **halved),
        **{name: load_recipe(f"table3/{name}-jft-7ep") for name in others},
    }
    stopping = {"validation": ValidationConfig(share=0.01), "early_stopping": EarlyStoppingConfig(patience=5)}
    rows = [
        _row(
            f"{name}-{millions}M",
            base.model_copy(update={"data": DataConfig(share=round(millions / 303, 6)), **stopping}),
        )
        for name, base in models.items()
        for millions in (9, 30, 90, 303)
    ]
    return Study("fig4", "how much data a model wants (Fig. 4)", tuple(rows))


def heads() -> Study:
    """App. D.3, Fig. 9: a class token, or the mean of all tokens, which wants another learning rate.

    The paper's numbers are ImageNet 5-shot accuracy, drawn only.
    """
    base = load_recipe("table3/vit-b16-jft-7ep")
    rows = (
        _row("token-8e-4", base),
        _row("gap-8e-4", _with_options(base, head="gap")),
        _row("gap-3e-4", with_changes(_with_options(base, head="gap"), ["optimizer.learning_rate=3e-4"])),
    )
    return Study("fig9", "class token or mean of all tokens (Fig. 9)", rows)


def plain_s16() -> Study:
    """The plain ViT-S/16 of 90 epochs, and without each of its parts (arXiv 2205.01580, table of ablations)."""
    full = pretrain.plain_recipe(90)
    bare = Augmentation(crop="inception", flip=True)
    original = _with_options(full, head="token", position="learned").model_copy(update={"batch_size": 4096})
    linear = {key: value for key, value in full.model.options.items() if key != "representation"}
    rows = (
        _row("full", full, "76.5"),
        _row("no RandAugment and Mixup", full.model_copy(update={"augmentation": bare}), "73.6"),
        _row("learned positions", _with_options(full, position="learned"), "75.0"),
        _row("batch 4096", full.model_copy(update={"batch_size": 4096}), "74.7"),
        _row("class token", _with_options(full, head="token"), "75.0"),
        _row(
            "linear head", full.model_copy(update={"model": full.model.model_copy(update={"options": linear})}), "76.7"
        ),
        _row("original with RandAugment and Mixup", original, "71.6"),
        _row("original", original.model_copy(update={"augmentation": bare}), "66.8"),
    )
    return Study("plain", "a plain ViT-S/16 without each of its parts (arXiv 2205.01580)", rows, "ImageNet top-1")


def augreg_grid(data: str, title: str, epochs: int) -> Study:
    """AugReg: 7 augmentations, each with 2 weight decays, with and without dropout and stochastic depth.

    Args:
        data: a name of `augreg.DATA`.
        title: of the data.
        epochs: of each run.
    """
    return Study(
        f"augreg/{data}",
        f"28 ways to augment and regularise, {title}, {epochs} epochs (AugReg)",
        tuple(
            _row(f"{name}-wd{decay}-do{rate}", augreg.recipe(data, name, decay, rate), seeds=(0,))
            for name in AUGREG
            for decay in augreg.WEIGHT_DECAYS
            for rate in augreg.REGULARISATIONS
        ),
    )


def transfer_grid(name: str, rates: tuple[float, ...], dev_share: float) -> Study:
    """A fine-tuning of Table 4 or of AugReg with all its learning rates, three runs.

    Args:
        name: of the recipe.
        rates: that its publication tries.
        dev_share: of the training images that they are tried on.
    """
    entry = library.entry(name)
    assert entry is not None
    row = StudyRow("best rate", Sweep(entry.recipe, rates, dev_share=dev_share), _published(entry))
    return Study(name, f"{entry.recipe.about}: all learning rates", (row,), verb="finetune")


def _published(entry: Entry) -> str:
    return "" if entry.expected == NOT_MEASURED else entry.expected.removesuffix("; not measured here")


def vtab() -> Study:
    """VTAB: 19 tasks, 1,000 training images each, three runs; the score is the mean over the tasks (section 6).

    The paper's numbers are of ViT-L/16 from ImageNet-21k (Table 9).
    """
    scores = zip(transfer.vtab_tasks().items(), transfer.TABLE_9, strict=True)
    rows = tuple(_row(name, make().recipe, f"{score:.1f}") for (name, make), score in scores)
    return Study("vtab", "VTAB's 19 tasks (Table 4)", rows, "ViT-L/16 from ImageNet-21k (Table 9)", "finetune", True)


def demo_rates() -> Study:
    """Three learning rates for the demo's model on the bundled Fashion-MNIST: some minutes on two cores."""
    recipe = load_recipe("demo-upstream")
    rows = (StudyRow("best rate", Sweep(recipe, (3e-4, 1e-3, 3e-3))),)
    return Study("demo-upstream", "learning rates of the demo's model, on bundled images", rows)


STUDIES: Mapping[str, Callable[[], Study]] = {
    "demo-upstream": demo_rates,
    "table8": positions,
    "fig8": shapes,
    "table7": optimizers,
    "fig4": subsets,
    "fig9": heads,
    "plain": plain_s16,
    "vtab": vtab,
    **{f"augreg/{row[0]}": partial(augreg_grid, row[0], row[2], row[3]) for row in augreg.DATA},
    **{f"table4/{row[0]}": partial(transfer_grid, f"table4/{row[0]}", row[3], row[5]) for row in transfer.TABLE_4},
    **{f"augreg/to-{row[0]}": partial(transfer_grid, f"augreg/to-{row[0]}", row[6], 0.1) for row in augreg.TRANSFERS},
}


def all_studies() -> list[Study]:
    """Every study that has a name."""
    return [make() for make in STUDIES.values()]


def find(name: str) -> Study:
    """The study of that name; no other one is made.

    Raises:
        UserError: there is none.
    """
    if name not in STUDIES:
        raise unknown_name("study", name, list(STUDIES), listing="`vitlab study` lists them")
    return STUDIES[name]()


def _row(name: str, recipe: Recipe, published: str = "", seeds: tuple[int, ...] = THREE_SEEDS) -> StudyRow:
    return StudyRow(name, Sweep(recipe, seeds=seeds), published)


def _with_options(recipe: Recipe, **options: OptionValue) -> Recipe:
    model = recipe.model.model_copy(update={"options": {**recipe.model.options, **options}})
    return recipe.model_copy(update={"model": model})
