"""Pretraining recipes: one function per named run."""

from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.schema import DataPart, ModelPart, OptimizerPart, PreprocessingPart, Recipe, SchedulePart


def demo_upstream() -> Recipe:
    """The first half of `vitlab demo`: a small ViT on the bundled Fashion-MNIST sample.

    Command: `vitlab pretrain demo-upstream --out runs/upstream`.
    Cost and score: see `benchmarks/results/demo.json`.
    """
    return Recipe(
        name="demo-upstream",
        about="a small ViT from scratch on the bundled Fashion-MNIST sample",
        epochs=13,
        batch_size=96,
        # Patches of 7 pixels and small shifts: in a thousand updates a small ViT cannot learn to undo large ones.
        model=ModelPart(name="ViT-Ti/7", image_size=28, options=dict(hidden=128, layers=4, heads=4, mlp=256)),
        data=DataPart(source="fashion-mnist"),
        preprocessing=PreprocessingPart(mean=(0.286,) * 3, std=(0.353,) * 3),
        augmentation=Augmentation(crop="pad", pad=1, flip=True),
        optimizer=OptimizerPart(learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0),
        schedule=SchedulePart(decay="cosine", warmup_steps=60),
    )


def fashion_mnist() -> Recipe:
    """The same ViT on the whole Fashion-MNIST (60,000 images; Debian's package dataset-fashion-mnist).

    Command: `vitlab pretrain fashion-mnist`.
    Cost and score: not measured.
    """
    return demo_upstream().model_copy(
        update=dict(
            name="fashion-mnist",
            about="a small ViT from scratch on the whole Fashion-MNIST",
            evaluate_every=1000,
            data=DataPart(source="fashion-mnist-full"),
        )
    )


def scratch() -> Recipe:
    """A ViT-S/16 from scratch on any image folder: a start to change with `--set`.

    Command: `vitlab pretrain scratch --data FOLDER`.
    Cost and score: not measured.
    """
    return Recipe(
        name="scratch",
        about="a ViT-S/16 from scratch on any data",
        epochs=90,
        batch_size=256,
        evaluate_every=500,
        model=ModelPart(name="ViT-S/16", image_size=224),
        augmentation=Augmentation(crop="inception", flip=True),
        optimizer=OptimizerPart(learning_rate=1e-3, weight_decay=0.1, clip_norm=1.0),
        schedule=SchedulePart(decay="cosine", warmup_steps=500),
    )
