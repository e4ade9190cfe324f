"""VTAB's 19 tasks as small data sets in the layouts in which people have them, one folder a task."""

from dataclasses import replace

from data import layouts
from vitlab.datasets.array_files import NORB_STEMS
from vitlab.datasets.synthetic import DSPRITES_FILE
from vitlab.recipes import vtab

SCALE = 20  # 40 and 10 training images stand for 800 and 200


def fewer_training_images(monkeypatch):
    """Cut the tasks' training splits as they are cut, but to fewer images."""
    monkeypatch.setattr(vtab, "_first", lambda cut, count: replace(cut, first=count // SCALE))


def write_all(root):
    """Every task's folder below `root`."""
    names = ["accordion", "BACKGROUND_Google", *(f"z{number:03d}" for number in range(100))]
    layouts.class_folders(root / "caltech101/101_ObjectCategories", names, 31)
    layouts.cifar(root / "cifar100", 100, 150)
    _lists(root / "dtd/dtd/images", "dtd/dtd/labels/{}1.txt", root, ("train", "val", "test"), "", 47, "kind")
    layouts.flowers(root / "flowers102", compress=True)
    layouts.pets(root / "pets", 3, 2)
    _lists(root / "sun397/SUN397", "sun397/SUN397/sun397_tfds_{}.txt", root, ("tr", "va", "te"), "/", 397, "a/place")
    layouts.svhn(root / "svhn", {"train": 150, "test": 30})
    for split in ("train", "validation", "test"):
        layouts.class_folders(root / "camelyon" / split, 2, 30)
        layouts.class_folders(root / "dmlab" / split, 6, 10)
    layouts.class_folders(root / "eurosat", 10, 12)
    layouts.class_folders(root / "resisc45", 45, 4)
    layouts.retinopathy(root / "retinopathy")
    _more_levels(root / "retinopathy")
    for task in ("clevr-count", "clevr-dist"):
        layouts.clevr(root / task / "CLEVR_v1.0", {"train": 120, "val": 24})
    for task in ("dsprites-loc", "dsprites-ori"):
        layouts.dsprites(root / task, DSPRITES_FILE, 120)
    layouts.kitti(root / "kitti-dist", 20, 6)
    for task in ("smallnorb-azim", "smallnorb-elev"):
        layouts.smallnorb(root / task, NORB_STEMS, 60, side=12)


def _lists(images, pattern, root, sides, prefix, count, name):
    layouts.listed(
        images, {root / pattern.format(side): (1, prefix) for side in sides}, [f"{name}{k:03d}" for k in range(count)]
    )


def _more_levels(root):
    """Retinopathy's fixture has 15 images for training; its list is made three times as long."""
    lines = (root / "trainLabels.csv").read_text().splitlines()
    more = []
    for copy in range(4):
        for line in lines[1:]:
            stem, level = line.split(",")
            more.append(f"{stem}_{copy},{level}")
            layouts.put(root / "train" / f"{stem}_{copy}.jpeg", int(level))
    (root / "trainLabels.csv").write_text("\n".join([*lines, *more]) + "\n")
