"""AugReg: how much data augmentation and regularisation a ViT wants (Steiner et al. 2021, arXiv 2106.10270)."""

from functools import partial

from vitlab.recipes import pretrain, transfer
from vitlab.recipes.augmentation import AUGREG, Augmentation
from vitlab.recipes.augmentation import augreg as augmentation_of
from vitlab.recipes.entries import IMAGENET, IMAGENET_21K, Entry, Makers
from vitlab.recipes.schema import (
    DataConfig,
    ModelSpec,
    ObjectiveConfig,
    OptimizerConfig,
    OptionValue,
    Recipe,
    ScheduleConfig,
)

# Name, source, title, epochs, images, bias of the last layer in big_vision's configurations (-ln of the classes).
DATA = (
    ("imagenet-300ep", "imagenet", "ImageNet", 300, IMAGENET, -6.9),
    ("i21k-30ep", "imagenet-21k", "ImageNet-21k", 30, IMAGENET_21K, -10.0),
    ("i21k-300ep", "imagenet-21k", "ImageNet-21k", 300, IMAGENET_21K, -10.0),
)
WEIGHT_DECAYS = (0.1, 0.03)
REGULARISATIONS = (0.0, 0.1)  # dropout and stochastic depth together
# Best of the published ImageNet-21k checkpoints of 300 epochs after fine-tuning at 384 pixels.
BEST_AT_384 = "Ti/16 78.22, S/32 79.58, S/16 83.73, B/32 83.59, B/16 85.49, L/16 85.59 % on ImageNet at 384"
# Name, source, title, updates, warm-up, the rate in the recipe, rates tried, training images.
TRANSFERS = (
    ("imagenet", "imagenet", "ImageNet", 20_000, 500, 0.03, (0.01, 0.03), IMAGENET),
    ("pets-500", "pets", "Pets", 500, 100, 0.003, (0.001, 0.003, 0.01), 3_680),
    ("pets-2500", "pets", "Pets", 2500, 200, 0.003, (0.001, 0.003, 0.01), 3_680),
    ("kitti-500", "vtab/kitti-dist", "KITTI", 500, 100, 0.003, (0.001, 0.003, 0.01), 1000),
    ("kitti-2500", "vtab/kitti-dist", "KITTI", 2500, 200, 0.003, (0.001, 0.003, 0.01), 1000),
    ("cifar100-2500", "cifar100", "CIFAR-100", 2500, 200, 0.003, (0.001, 0.003, 0.01), 50_000),
    ("cifar100-10k", "cifar100", "CIFAR-100", 10_000, 500, 0.003, (0.001, 0.003, 0.01), 50_000),
    ("resisc45-2500", "vtab/resisc45", "Resisc45", 2500, 200, 0.003, (0.001, 0.003, 0.01), 1000),
    ("resisc45-10k", "vtab/resisc45", "Resisc45", 10_000, 500, 0.003, (0.001, 0.003, 0.01), 1000),
)


def recipe(data: str, augmentation: str, weight_decay: float = 0.1, regularisation: float = 0.0) -> Recipe:
    """One pretraining run of AugReg; the model is a ViT-S/16 unless `--model` says another.

    Args:
        data: a name of `DATA`.
        augmentation: a name of `AUGREG`.
        weight_decay: 0.1 or 0.03 in the paper.
        regularisation: dropout, and stochastic depth of the last layer: both 0 or both 0.1 in the paper.
    """
    name, source, title, epochs, _, bias = next(row for row in DATA if row[0] == data)
    options: dict[str, OptionValue] = {}
    if regularisation:
        options = {"dropout": regularisation, "drop_path": regularisation}
    about = f"ViT-S/16, or any --model, on {title}, {epochs} epochs, augmentation {augmentation} (AugReg)"
    return pretrain.large_scale(
        f"augreg/{name}-{augmentation}", about, ModelSpec(name="ViT-S/16", image_size=224, options=options), epochs
    ).model_copy(
        update={
            "data": DataConfig(source=source),
            "augmentation": augmentation_of(augmentation),
            "objective": ObjectiveConfig(loss="sigmoid", head_bias=bias),
            "optimizer": OptimizerConfig(learning_rate=1e-3, weight_decay=weight_decay, clip_norm=1.0),
            "schedule": ScheduleConfig(decay="cosine", warmup_steps=10_000),
        }
    )


def pretraining() -> Makers:
    """AugReg's pretraining: `augreg/DATA-AUGMENTATION`, for 3 data sets and lengths and 7 augmentations.

    Weight decay is 0.1 and regularisation off; `--set optimizer.weight_decay=0.03`, `--set model.options.dropout=0.1`
    and `--set model.options.drop_path=0.1` give the other columns, and `vitlab study augreg/i21k-30ep` all of them.
    Command: `vitlab pretrain augreg/i21k-300ep-medium1 --model ViT-B/16`. Cost: computed for ViT-S/16. Scores: those of
    the published checkpoints; not measured here.
    """
    return {
        f"augreg/{row[0]}-{augmentation}": partial(_pretraining, row[0], augmentation, row[4])
        for row in DATA
        for augmentation in AUGREG
    }


def _pretraining(data: str, augmentation: str, images: int) -> Entry:
    is_published = data == "i21k-300ep"
    return Entry(
        recipe(data, augmentation),
        images=images,
        expected=f"{BEST_AT_384}, the best of all augmentations; not measured here" if is_published else "not measured",
        chosen="sigmoid loss and bias of the last layer as in big_vision's code; no hidden layer in the head",
    )


def transfer_runs() -> Makers:
    """AugReg's fine-tuning: `augreg/to-DATA-STEPS`, with SGD, batch 512 and the paper's crop at 384 pixels.

    Command: `vitlab finetune MODEL --recipe augreg/to-pets-500`; `vitlab study augreg/to-pets-500` tries all rates.
    Cost: computed for ViT-B/16. Scores: not measured. To choose among models from ImageNet-21k by their score on
    ImageNet, AugReg takes imagenet-v2.
    """
    return {f"augreg/to-{row[0]}": partial(_transfer, *row) for row in TRANSFERS}


def _transfer(
    name: str, source: str, title: str, steps: int, warmup: int, rate: float, rates: tuple[float, ...], images: int
) -> Entry:
    assert rate in rates
    about = f"any model on {title}, {steps:,} updates (AugReg)"
    started = transfer.paper_finetuning(f"augreg/to-{name}", about, source, steps, rate)
    # VTAB's exceptions for these tasks are those of BiT's appendix F.
    changed = started.model_copy(
        update={
            "augmentation": Augmentation(crop="none" if name.startswith("kitti") else "inception", flip=True),
            "schedule": ScheduleConfig(decay="cosine", warmup_steps=warmup),
        }
    )
    chosen = "this rate of the grid; the authors' code's Inception crop, but none for KITTI"
    return Entry(changed, "finetune", images, chosen=chosen)
