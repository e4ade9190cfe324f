"""How many classes and training images the data sets have that recipes name, without opening them."""

from dataclasses import dataclass

from vitlab.recipes import vtab

JFT, IMAGENET_21K, IMAGENET = 303_000_000, 14_000_000, 1_281_167  # training images, as the paper counts them


@dataclass(frozen=True)
class NamedData:
    """What is known of a data set that can be trained on.

    Attributes:
        classes: how many.
        images: in its training set; none where releases differ.
    """

    classes: int
    images: int | None = None


SETS = {
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


def find(source: str) -> NamedData | None:
    """What is known of a recipe's source, NAME or NAME=PATH; none of folders, shards, and names of elsewhere."""
    return SETS.get(source.partition("=")[0])
