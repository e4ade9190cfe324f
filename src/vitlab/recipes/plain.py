"""Better plain ViT-S/16 baselines on ImageNet (Beyer et al. 2022, arXiv 2205.01580)."""

from functools import partial

from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.entries import IMAGENET, Entry, Makers
from vitlab.recipes.pretrain import AT_224
from vitlab.recipes.schema import (
    DataConfig,
    ModelSpec,
    ObjectiveConfig,
    OptimizerConfig,
    Recipe,
    ScaleConfig,
    ScheduleConfig,
)

# Epochs, top-1 on ImageNet, ReaL and ImageNet-v2.
ROWS = ((90, 76.5, 83.1, 64.2), (150, 78.5, 84.5, 66.4), (300, 80.0, 85.4, 68.3))


def recipe(epochs: int) -> Recipe:
    """The recipe in its final form; 99 % of the training images, as the report's."""
    return Recipe(
        name=f"plain/vit-s16-{epochs}ep",
        about=f"ViT-S/16 on ImageNet, {epochs} epochs (arXiv 2205.01580)",
        epochs=epochs,
        batch_size=1024,
        evaluate_every=5000,
        checkpoint_every=1000,
        log_every=50,
        model=ModelSpec(
            name="ViT-S/16", image_size=224, options={"head": "gap", "position": "sincos2d", "representation": 384}
        ),
        data=DataConfig(source="imagenet", share=0.99),
        preprocessing=AT_224,
        augmentation=Augmentation(
            crop="inception", flip=True, randaugment_layers=2, randaugment_magnitude=10, mixup=0.2
        ),
        objective=ObjectiveConfig(loss="softmax"),
        # 1e-4, not multiplied by the learning rate's peak, in the report's terms.
        optimizer=OptimizerConfig(learning_rate=1e-3, weight_decay=0.1, decay_kernels_only=True, clip_norm=1.0),
        schedule=ScheduleConfig(decay="cosine", warmup_steps=10_000),
        scale=ScaleConfig(accumulation="auto"),
    )


def entries() -> Makers:
    """The plain S/16: `plain/vit-s16-90ep`, `-150ep`, `-300ep`.

    Command: `vitlab pretrain plain/vit-s16-90ep`. Cost: computed. Scores: 76.5, 78.5 and 80.0 % in the report; none is
    measured here.
    """
    return {f"plain/vit-s16-{row[0]}ep": partial(_entry, *row) for row in ROWS}


def _entry(epochs: int, top1: float, real: float, v2: float) -> Entry:
    return Entry(
        recipe(epochs),
        images=IMAGENET,
        expected=f"ImageNet top-1 {top1} %, ReaL {real} %, v2 {v2} % (arXiv 2205.01580); not measured here",
        chosen="which 1 % of the training images is left out",
    )
