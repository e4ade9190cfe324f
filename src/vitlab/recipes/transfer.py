"""The paper's fine-tuning: every row of Table 4, and VTAB. It is training that starts from weights (`init_from`)."""

from functools import partial

from vitlab.recipes import vtab
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.entries import Entry, Makers
from vitlab.recipes.schema import DataConfig, ModelSpec, OptimizerConfig, Recipe, ScaleConfig, ScheduleConfig

# Data set, its title, steps, learning rates that the paper tries, the one of them that the recipe has, share of train
# that the rates are tried on, training images, and top-1 of ViT-B/16 and ViT-L/16 from ImageNet-21k (Table 5).
TABLE_4 = (
    ("imagenet", "ImageNet", 20_000, (0.003, 0.01, 0.03, 0.06), 0.03, 0.01, 1_281_167, 83.97, 85.15),
    ("cifar10", "CIFAR-10", 10_000, (0.001, 0.003, 0.01, 0.03), 0.01, 0.02, 50_000, 98.95, 99.16),
    ("cifar100", "CIFAR-100", 10_000, (0.001, 0.003, 0.01, 0.03), 0.01, 0.02, 50_000, 91.67, 93.44),
    ("pets", "Oxford-IIIT Pets", 500, (0.001, 0.003, 0.01, 0.03), 0.01, 0.1, 3_680, 94.43, 94.73),
    ("flowers", "Oxford Flowers-102", 500, (0.001, 0.003, 0.01, 0.03), 0.01, 0.1, 2_040, 99.38, 99.61),
)
# Table 2's larger images, with Polyak averaging: pixels, model, top-1 and what it was pretrained on.
TABLE_2_IMAGENET = (
    (512, "ViT-L/16", "85.30 ± 0.02 % from ImageNet-21k, 87.76 ± 0.03 % from JFT-300M"),
    (518, "ViT-H/14", "88.55 ± 0.04 % from JFT-300M"),
)
# ViT-L/16 from ImageNet-21k (Table 9), in the order of the tasks.
TABLE_9 = (
    *(90.8, 84.1, 74.1, 99.3, 92.7, 61.0, 80.9),
    *(82.5, 95.6, 85.2, 75.3),
    *(70.3, 56.1, 41.9, 74.7, 64.9, 79.9, 30.5, 41.7),
)
CHOSEN = (
    "warm-up as in the authors' code; BiT's crop, which the paper cites (the authors' code has "
    "augmentation.crop=inception); no dropout"
)


def table4() -> Makers:
    """Every row of Table 4: `table4/DATA`, and Table 2's `table4/imagenet-512` and `table4/imagenet-518`.

    Command: `vitlab finetune MODEL --recipe table4/cifar10`. The learning rate is one of the paper's grid;
    `vitlab study table4/cifar10` tries the complete grid as the paper does. Cost: computed for ViT-B/16, see
    `vitlab recipes show NAME`. Scores: Tables 2 and 5; none is measured here.
    """
    return {
        **{f"table4/{row[0]}": partial(_table4, *row) for row in TABLE_4},
        **{f"table4/imagenet-{row[0]}": partial(_larger, *row) for row in TABLE_2_IMAGENET},
    }


def paper_finetuning(name: str, about: str, source: str, steps: int, rate: float) -> Recipe:
    """What the paper's fine-tuning has in common (Table 4, B.1.1).

    SGD with momentum 0.9, batch 512, cosine decay, no weight decay, global norm 1, 384 pixels.
    """
    return Recipe(
        name=name,
        about=about,
        steps=steps,
        batch_size=512,
        checkpoint_every=500,
        model=ModelSpec(name="ViT-B/16", image_size=384),
        data=DataConfig(source=source),
        augmentation=Augmentation(crop="random", flip=True),
        optimizer=OptimizerConfig(kind="sgd", learning_rate=rate, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=500 if steps > 500 else 100),
        scale=ScaleConfig(accumulation="auto"),
    )


def _table4(
    source: str, title: str, steps: int, rates: tuple[float, ...], rate: float, dev_share: float, images: int,
    base: float, large: float,
) -> Entry:  # fmt: skip
    assert rate in rates
    recipe = paper_finetuning(f"table4/{source}", f"any model on {title} at 384 pixels (Table 4)", source, steps, rate)
    expected = f"ViT-B/16 {base:.2f} %, ViT-L/16 {large:.2f} % from ImageNet-21k (Table 5); not measured here"
    return Entry(recipe, "finetune", images, expected, f"{CHOSEN}; this rate of the grid")


def _larger(size: int, model: str, scores: str) -> Entry:
    name, about = f"table4/imagenet-{size}", f"{model} on ImageNet at {size} pixels, averaged (Table 2)"
    recipe = paper_finetuning(name, about, "imagenet", 20_000, 0.03).model_copy(
        update={"averaging": 0.9999, "model": ModelSpec(name=model, image_size=size)}
    )
    expected = f"{scores} (Table 2); not measured here"
    return Entry(recipe, "finetune", 1_281_167, expected, f"{CHOSEN}; this rate of the grid")


def vtab_tasks() -> Makers:
    """VTAB's 19 tasks: `vtab/TASK`, 2,500 steps at learning rate 0.01 on 1,000 images at 384 pixels (Table 4).

    BiT's appendix F exempts some tasks from mirroring and some from random crops; see `vtab.TASKS`.
    Command: `vitlab finetune MODEL --recipe vtab/dtd`; `vitlab study vtab` does all. Cost: computed for ViT-B/16.
    Scores: Table 9 for ViT-L/16 from ImageNet-21k, 72.7 % on average; none is measured here.
    """
    scores = zip(vtab.TASKS, TABLE_9, strict=True)
    return {f"vtab/{task.name}": partial(_task, task, score) for task, score in scores}


def _task(task: vtab.VtabTask, score: float) -> Entry:
    name = f"vtab/{task.name}"
    recipe = paper_finetuning(name, f"any model on VTAB's {task.label} (Table 4)", name, 2500, 0.01).model_copy(
        update={"augmentation": Augmentation(crop="random" if task.crop else "none", flip=task.flip)}
    )
    expected = f"ViT-L/16 {score:.1f} % from ImageNet-21k (Table 9); not measured here"
    return Entry(recipe, "finetune", 1000, expected, CHOSEN)
