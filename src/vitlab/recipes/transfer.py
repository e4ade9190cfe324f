"""Fine-tuning recipes: the same loop, started from weights (`init_from`)."""

from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.schema import DataPart, ModelPart, ObjectivePart, OptimizerPart, Recipe, SchedulePart


def demo_downstream() -> Recipe:
    """The second half of `vitlab demo`: the upstream model on digits, at a higher resolution, averaged.

    Command: `vitlab finetune runs/upstream --recipe demo-downstream --data digits`.
    Cost and score: see `benchmarks/results/demo.json`.
    """
    return Recipe(
        name="demo-downstream",
        about="the upstream model on handwritten digits at a higher resolution, with Polyak averaging",
        steps=800,
        batch_size=64,
        averaging=0.98,
        model=ModelPart(image_size=35),
        data=DataPart(source="digits"),
        augmentation=Augmentation(crop="inception", area=(0.7, 1.0), flip=False),
        objective=ObjectivePart(label_smoothing=0.1),
        optimizer=OptimizerPart(learning_rate=1.5e-3, weight_decay=0.1, clip_norm=1.0),
        schedule=SchedulePart(decay="cosine", warmup_steps=60),
    )


def finetune() -> Recipe:
    """Any model on any image folder: a calm start that suits small data sets.

    Command: `vitlab finetune MODEL --data FOLDER`.
    Cost and score: depend on the model and the data; not measured.
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
        optimizer=OptimizerPart(learning_rate=3e-4, weight_decay=0.0, clip_norm=1.0),
        schedule=SchedulePart(decay="cosine", warmup_steps=30),
    )
