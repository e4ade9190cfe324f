"""The catalog's data sets: what each is, how people have it on disk, where the hub has it, and how it is divided.

Hub names were true when they were written down, but nothing here depends on them: `hf://` opens any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vitlab.data.sources import Bad, Source
from vitlab.datasets import array_files, imagenet, photos, synthetic
from vitlab.recipes import vtab
from vitlab.recipes.vtab import Cut

Reader = Callable[[Path, str, Bad], Source]  # (folder, official split, bad) -> all its samples


@dataclass(frozen=True)
class Layout:
    """How people have a data set on disk: the files by which it is known, what it looks like, and who reads it."""

    markers: tuple[str, ...]
    looks: str
    read: Reader
    inner: tuple[str, ...] = ()  # folders that an archive wraps around it
    pickled: tuple[str, ...] = ()  # files by which a version of it is known that is never read
    alone: bool = False  # whether its order matters, so that no other form will do


@dataclass(frozen=True)
class Place:
    """Where a named data set is read from: a folder, or else the hub.

    Attributes:
        name: the data set's.
        folder: the user's; None reads from the hub.
        hub: hf://owner/name[@config][?label=COLUMN].
        layout: its own, beside those that every data set may have.
        classes: how many there are.
        exact: whether another number of them is refused.
        bad: see `folders.open_folder`.
    """

    name: str
    folder: Path | None
    hub: str | None
    layout: Layout | None
    classes: int
    bad: Bad = "refuse"
    exact: bool = True


CLEVR_LOOKS = "images/, scenes/CLEVR_train_scenes.json, scenes/CLEVR_val_scenes.json"
NORB_LOOKS = "smallnorb-5x...-{training,testing}-{dat,info}.mat"

CIFAR10 = Layout(
    ("data_batch_1.bin", "test_batch.bin"),
    "data_batch_1.bin .. data_batch_5.bin, test_batch.bin, batches.meta.txt",
    array_files.open_cifar10,
    ("cifar-10-batches-bin",),
    ("data_batch_1", "cifar-10-batches-py"),
)
CIFAR100 = Layout(
    ("fine_label_names.txt",),
    "train.bin, test.bin, fine_label_names.txt",
    array_files.open_cifar100,
    ("cifar-100-binary",),
    ("meta", "cifar-100-python"),
)
PETS = Layout(
    ("annotations/trainval.txt",), "images/*.jpg, annotations/trainval.txt, annotations/test.txt", photos.open_pets
)
FLOWERS = Layout(("setid.mat",), "jpg/image_00001.jpg .., imagelabels.mat, setid.mat", photos.open_flowers)
DTD = Layout(("labels/train1.txt",), "images/CLASS/*.jpg, labels/{train1,val1,test1}.txt", photos.open_dtd, ("dtd",))
CALTECH = Layout(
    ("accordion",),
    "101_ObjectCategories/CLASS/*.jpg",
    photos.open_caltech101,
    ("101_ObjectCategories", "caltech-101/101_ObjectCategories"),
)
BIRDS = Layout(
    ("train_test_split.txt",),
    "images/, images.txt, classes.txt, image_class_labels.txt, train_test_split.txt",
    photos.open_birds,
    ("CUB_200_2011",),
)
SUN397 = Layout(
    ("sun397_tfds_tr.txt",), "a/abbey/*.jpg .., sun397_tfds_{tr,va,te}.txt", photos.open_sun397, ("SUN397",)
)
SVHN = Layout(("train_32x32.mat", "test_32x32.mat"), "train_32x32.mat, test_32x32.mat", array_files.open_svhn)
RETINOPATHY = Layout(
    ("trainLabels.csv",),
    "train/*.jpeg, test/*.jpeg, trainLabels.csv, retinopathy_solution.csv",
    photos.open_retinopathy,
)
IMAGENET = Layout(
    ("train/n01440764", "val/n01440764", "ILSVRC/Data/CLS-LOC/train", imagenet.KAGGLE, imagenet.SYNSETS),
    "train/SYNSET/*.JPEG, and val/SYNSET/*.JPEG or val/*.JPEG with LOC_val_solution.csv or "
    "imagenet_2012_validation_synset_labels.txt",
    imagenet.open_imagenet,
)
IMAGENET_REAL = replace(IMAGENET, alone=True)
IMAGENET_V2 = Layout(
    (
        "0",
        "imagenetv2-matched-frequency-format-val",
        "imagenetv2-top-images-format-val",
        "imagenetv2-threshold0.7-format-val",
    ),
    "0/*.jpeg .. 999/*.jpeg",
    imagenet.open_imagenet_v2,
    ("test", "val"),
)
OBJECTNET = Layout(
    ("mappings/folder_to_objectnet_label.json",),
    "images/FOLDER/*.png, mappings/*",
    imagenet.open_objectnet,
    ("objectnet-1.0",),
)
CLEVR_INNER = ("CLEVR_v1.0",)
CLEVR_MARKERS = ("scenes/CLEVR_train_scenes.json",)
CLEVR_COUNT = Layout(CLEVR_MARKERS, CLEVR_LOOKS, synthetic.open_clevr_count, CLEVR_INNER)
CLEVR_DISTANCE = Layout(CLEVR_MARKERS, CLEVR_LOOKS, synthetic.open_clevr_distance, CLEVR_INNER)
KITTI = Layout(
    ("training/label_2",),
    "training/image_2/*.png, training/label_2/*.txt, mapping/train_rand.txt, mapping/train_mapping.txt",
    synthetic.open_kitti,
)
DSPRITES_LOCATION = Layout((synthetic.DSPRITES_FILE,), synthetic.DSPRITES_FILE, synthetic.open_dsprites_location)
DSPRITES_ORIENTATION = Layout((synthetic.DSPRITES_FILE,), synthetic.DSPRITES_FILE, synthetic.open_dsprites_orientation)
NORB_MARKERS = tuple(f"{stem}-dat.mat" for stem in array_files.NORB_STEMS.values())
SMALLNORB_AZIMUTH = Layout(NORB_MARKERS, NORB_LOOKS, array_files.open_smallnorb_azimuth)
SMALLNORB_ELEVATION = Layout(NORB_MARKERS, NORB_LOOKS, array_files.open_smallnorb_elevation)

CIFAR10_HUB = "hf://uoft-cs/cifar10?image=img&label=label"
CIFAR100_HUB = "hf://uoft-cs/cifar100?image=img&label=fine_label"
PETS_HUB = "hf://timm/oxford-iiit-pet?image=image&label=label"
FLOWERS_HUB = "hf://dpdl-benchmark/oxford_flowers102"
CALTECH_HUB = "hf://dpdl-benchmark/caltech101"
IMAGENET_HUB = "hf://ILSVRC/imagenet-1k"


@dataclass(frozen=True)
class NamedSet:
    """One data set of the catalog.

    Attributes:
        what: one line.
        classes: how many.
        train, test: where its two sides are cut from; None for a set that is for testing only.
        dev_share: how much of train the development split takes (paper: appendix B.1.1).
        layout: its own layout on disk, beside those that every set may have.
        hub: where the hub has it with the official splits.
        exact: whether another number of classes is refused; ImageNet-21k has releases of several.
    """

    what: str
    classes: int
    train: Cut | None
    test: Cut
    dev_share: float = 0.1
    layout: Layout | None = None
    hub: str | None = None
    exact: bool = True


TRAIN, VALIDATION, TEST = Cut("train"), Cut("validation"), Cut("test")

SETS: Mapping[str, NamedSet] = {
    "imagenet": NamedSet("ImageNet-1k; tested on validation", 1000, TRAIN, VALIDATION, 0.01, IMAGENET, IMAGENET_HUB),
    "imagenet-21k": NamedSet(
        "ImageNet-21k; its last hundredth for testing",
        21_843,
        Cut("train", 0, 99),
        Cut("train", 99, 100),
        0.01,
        exact=False,
    ),
    "imagenet-real": NamedSet(
        "ImageNet's validation images, in ReaL's order", 1000, None, VALIDATION, layout=IMAGENET_REAL
    ),
    "imagenet-v2": NamedSet("ImageNetV2", 1000, None, TEST, layout=IMAGENET_V2),
    "objectnet": NamedSet("ObjectNet, 113 classes shared with ImageNet", 313, None, TEST, layout=OBJECTNET),
    "cifar10": NamedSet("CIFAR-10", 10, TRAIN, TEST, 0.02, CIFAR10, CIFAR10_HUB),
    "cifar100": NamedSet("CIFAR-100", 100, TRAIN, TEST, 0.02, CIFAR100, CIFAR100_HUB),
    "pets": NamedSet("Oxford-IIIT Pets", 37, TRAIN, TEST, 0.1, PETS, PETS_HUB),
    "flowers": NamedSet("Oxford Flowers-102", 102, TRAIN, TEST, 0.1, FLOWERS, FLOWERS_HUB),
    "caltech": NamedSet("Caltech-101", 102, TRAIN, TEST, layout=CALTECH, hub=CALTECH_HUB),
    "cars": NamedSet("Stanford Cars", 196, TRAIN, TEST, hub="hf://tanganke/stanford_cars"),
    "dtd": NamedSet("Describable Textures, division 1", 47, TRAIN, TEST, layout=DTD),
    "uc_merced": NamedSet("UC Merced Land Use", 21, Cut("train", first=1000), Cut("train", skip=1000)),
    "birds": NamedSet("Caltech-UCSD Birds 2011", 200, TRAIN, TEST, layout=BIRDS),
    "col_hist": NamedSet("Colorectal histology", 8, Cut("train", first=2000), Cut("train", skip=2000)),
}

# VTAB's layouts and hub versions; splits and everything else are `recipes.vtab`'s.
VTAB_PLACES: Mapping[str, tuple[Layout | None, str | None]] = {
    "caltech101": (CALTECH, CALTECH_HUB),
    "cifar100": (CIFAR100, CIFAR100_HUB),
    "dtd": (DTD, None),
    "flowers102": (FLOWERS, FLOWERS_HUB),
    "pets": (PETS, PETS_HUB),
    "sun397": (SUN397, None),
    "svhn": (SVHN, "hf://ufldl-stanford/svhn@cropped_digits"),
    "camelyon": (None, "hf://dpdl-benchmark/patch_camelyon"),
    "eurosat": (None, None),
    "resisc45": (None, None),
    "retinopathy": (RETINOPATHY, None),
    "clevr-count": (CLEVR_COUNT, None),
    "clevr-dist": (CLEVR_DISTANCE, None),
    "dmlab": (None, None),
    "dsprites-loc": (DSPRITES_LOCATION, None),
    "dsprites-ori": (DSPRITES_ORIENTATION, None),
    "kitti-dist": (KITTI, None),
    "smallnorb-azim": (SMALLNORB_AZIMUTH, None),
    "smallnorb-elev": (SMALLNORB_ELEVATION, None),
}


def names() -> list[str]:
    """The names of all sets, VTAB's last."""
    return [*SETS, *(f"vtab/{task.name}" for task in vtab.TASKS)]


def describe(name: str) -> tuple[str, str, int, str]:
    """(name, what it is, classes, what is needed) of a set."""
    if name.startswith("vtab/"):
        task = vtab.get(name)
        layout, hub = VTAB_PLACES[task.name]
        return name, f"VTAB-1k: {task.label}", task.classes, _needs(layout, hub)
    found = SETS[name]
    return name, found.what, found.classes, _needs(found.layout, found.hub)


def _needs(layout: Layout | None, hub: str | None) -> str:
    own = "a folder" if layout is None else f"a folder with {layout.looks}"
    return own if hub is None else f"{own}; or {hub.partition('?')[0]}"
