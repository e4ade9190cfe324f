"""Big Transfer: how its ResNets are pretrained, and BiT-HyperRule (Kolesnikov et al. 2020, arXiv 1912.11370)."""

from functools import partial
from typing import Literal

from vitlab.recipes import pretrain
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.entries import IMAGENET, IMAGENET_21K, JFT, Entry, Makers
from vitlab.recipes.schema import (
    DataConfig,
    ModelSpec,
    ObjectiveConfig,
    OptimizerConfig,
    Recipe,
    ScaleConfig,
    ScheduleConfig,
)

Loss = Literal["softmax", "sigmoid"]
# Name, source, title, epochs, epochs after which the rate falls, images, loss.
UPSTREAM: tuple[tuple[str, str, str, int, tuple[int, ...], int, Loss], ...] = (
    ("s", "imagenet", "ImageNet (BiT-S)", 90, (30, 60, 80), IMAGENET, "softmax"),
    ("m", "imagenet-21k", "ImageNet-21k (BiT-M)", 90, (30, 60, 80), IMAGENET_21K, "sigmoid"),
    ("l", "", "JFT-300M (BiT-L)", 40, (10, 23, 30, 37), JFT, "sigmoid"),
)
SMALL, MEDIUM = 20_000, 500_000  # training images below which a task is small, or medium
LOW_RESOLUTION = 96 * 96
STEPS = {"500": (500, 100), "10k": (10_000, 500), "20k": (20_000, 500)}


def upstream() -> Makers:
    """BiT's pretraining: `bit/s`, `bit/m` and `bit/l`, of a BiT-R50x1 unless `--model` says another.

    Command: `vitlab pretrain bit/m --model BiT-R152x4`. Cost: computed for BiT-R50x1. Scores: not measured.
    """
    return {f"bit/{row[0]}": partial(_upstream, *row) for row in UPSTREAM}


def _upstream(
    name: str, source: str, title: str, epochs: int, falls: tuple[int, ...], images: int, loss: Loss
) -> Entry:
    about = f"BiT-R50x1, or any --model, on {title}, {epochs} epochs"
    recipe = pretrain.large_scale(f"bit/{name}", about, ModelSpec(name="BiT-R50x1", image_size=224), epochs)
    milestones = tuple(fall / epochs for fall in falls)
    changed = recipe.model_copy(
        update={
            "data": DataConfig(source=source),
            "objective": ObjectiveConfig(loss=loss),
            "optimizer": sgd(),
            "schedule": ScheduleConfig(decay="staircase", warmup_steps=5000, milestones=milestones),
        }
    )
    return Entry(changed, images=images, chosen="sigmoid loss where images have several labels")


def sgd() -> OptimizerConfig:
    """BiT's optimizer in pretraining: 0.03 for every 256 images of a batch of 4096, weight decay 1e-4."""
    return OptimizerConfig(kind="sgd", learning_rate=0.03 * 4096 / 256, weight_decay=1e-4, clip_norm=0.0)


def hyperrule(images: int, height: int, width: int, *, larger: bool = False) -> Recipe:
    """BiT-HyperRule: all choices of a fine-tuning from the size of the data set and of its images.

    Args:
        images: in the training set: 500 steps below 20,000, 10,000 below 500,000, else 20,000.
        height: of a typical image, in pixels.
        width: of the same; below an area of 96 x 96 images are resized to 160 and cut to 128, else 448 and 384.
        larger: 512 cut to 480 for large images, as for R152x4, and always in the authors' code.
    """
    length = "500" if images < SMALL else "10k" if images < MEDIUM else "20k"
    size = 128 if height * width < LOW_RESOLUTION else 480 if larger else 384
    return _fixed(length, size)


def _fixed(length: str, size: int) -> Recipe:
    steps, warmup = STEPS[length]
    enlarge = {128: 160 / 128, 384: 448 / 384, 480: 512 / 480}[size]
    return Recipe(
        name=f"bit/hyperrule-{length}-{size}",
        about=f"any model at {size} pixels, {steps:,} updates (BiT-HyperRule)",
        steps=steps,
        batch_size=512,
        checkpoint_every=500,
        model=ModelSpec(name="BiT-R50x1", image_size=size),
        augmentation=Augmentation(crop="random", enlarge=enlarge, flip=True, mixup=0.0 if length == "500" else 0.1),
        optimizer=OptimizerConfig(kind="sgd", learning_rate=0.003, weight_decay=0.0, clip_norm=0.0),
        schedule=ScheduleConfig(decay="staircase", warmup_steps=warmup, milestones=(0.3, 0.6, 0.9)),
        scale=ScaleConfig(accumulation="auto"),
    )


def hyperrules() -> Makers:
    """Every outcome of BiT-HyperRule: `bit/hyperrule-STEPS-PIXELS`.

    Take STEPS 500 below 20,000 training images, 10k below 500,000, else 20k; PIXELS 128 for images smaller than
    96 x 96, else 384 (480 for R152x4). Command: `vitlab finetune MODEL --recipe bit/hyperrule-10k-128 --data SOURCE`.
    Cost: depends on the model. Scores: not measured.
    """
    lengths = [(length, size) for length in STEPS for size in (128, 384, 480)]
    return {f"bit/hyperrule-{length}-{size}": partial(_hyperrule_entry, length, size) for length, size in lengths}


def _hyperrule_entry(length: str, size: int) -> Entry:
    return Entry(_fixed(length, size), "finetune", chosen="warm-up as in the authors' code")
