"""Writes small data sets in the layouts in which people have them, for the tests of the catalog."""

import csv
import json

import numpy as np
import scipy.io
from PIL import Image

from data.pictures import encode

JPEGS = {}


def jpeg(number):
    """A tiny JPEG whose grey value tells its number."""
    if number not in JPEGS:
        JPEGS[number] = encode(Image.new("L", (8, 8), number % 256), "JPEG")
    return JPEGS[number]


def put(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(number))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def class_folders(root, classes, images):
    """CLASS/0.jpg .. with as many images of each class as given; classes are named, or numbered."""
    names = classes if isinstance(classes, list) else [f"c{number:03d}" for number in range(classes)]
    for label, name in enumerate(names):
        for image in range(images):
            put(root / name / f"{image}.jpg", label)
    return root


def cifar(root, classes, rows, seed=0):
    """CIFAR-10's or -100's binary version, `rows` images a file; returns each file's (labels, images_NHWC)."""
    random = np.random.default_rng(seed)
    hundred = classes == 100
    files = ["train.bin", "test.bin"] if hundred else [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    write(
        root / ("fine_label_names.txt" if hundred else "batches.meta.txt"),
        "".join(f"k{i}\n" for i in range(classes)) + "\n",
    )
    found = {}
    for name in files:
        labels = random.integers(0, classes, rows).astype(np.uint8)
        images = random.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8)
        coarse = [random.integers(0, 20, (rows, 1)).astype(np.uint8)] if hundred else []
        body = np.concatenate([*coarse, labels[:, None], images.transpose(0, 3, 1, 2).reshape(rows, -1)], axis=1)
        (root / name).write_bytes(body.tobytes())
        found[name] = labels, images
    return found


def pets(root, train, test):
    """37 breeds, `train` and `test` images of each."""
    for name, first, count in (("trainval.txt", 0, train), ("test.txt", train, test)):
        lines = ["# Image CLASS-ID SPECIES BREED ID"] if name == "test.txt" else []
        for breed in range(37):
            for image in range(first, first + count):
                stem = f"big_breed{breed:02d}_{image}"
                lines.append(f"{stem} {breed + 1} 1 1")
                put(root / "images" / f"{stem}.jpg", breed)
        write(root / "annotations" / name, "\n".join(lines) + "\n")


def flowers(root, compress):
    """102 classes; one image of each for training and validation, two for testing; image numbers shuffled."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(1, 103), 4))
    sets = {"trnid": [], "valid": [], "tstid": []}
    for kind in range(1, 103):
        first, second, *rest = (np.flatnonzero(labels == kind) + 1).tolist()
        sets["trnid"].append(first)
        sets["valid"].append(second)
        sets["tstid"] += rest
    root.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels[None].astype(np.uint8)}, do_compression=compress)
    matrices = {name: np.array([numbers], np.uint16) for name, numbers in sets.items()}
    scipy.io.savemat(root / "setid.mat", matrices, do_compression=compress)
    for image, label in enumerate(labels.tolist(), 1):
        put(root / "jpg" / f"image_{image:05d}.jpg", label)
    return labels, sets


def listed(images, lists, classes):
    """Images by class folders, and for each list (path -> images a class, what stands before a name) their names."""
    first = 0
    for path, (count, prefix) in lists.items():
        lines = []
        for label, name in enumerate(classes):
            for image in range(first, first + count):
                put(images / name / f"{image}.jpg", label)
                lines.append(f"{prefix}{name}/{image}.jpg")
        first += count
        write(path, "\n".join(lines) + "\n")


def birds(root):
    """200 classes, an image of each for training and for testing."""
    write(root / "classes.txt", "".join(f"{label + 1} {label + 1:03d}.Bird\n" for label in range(200)))
    names = [(f"{label + 1:03d}.Bird/{side}.jpg", label, side) for label in range(200) for side in (0, 1)]
    write(root / "images.txt", "".join(f"{row} {name}\n" for row, (name, _, _) in enumerate(names, 1)))
    write(root / "image_class_labels.txt", "".join(f"{row} {k + 1}\n" for row, (_, k, _) in enumerate(names, 1)))
    write(root / "train_test_split.txt", "".join(f"{row} {side}\n" for row, (_, _, side) in enumerate(names, 1)))
    for name, label, _ in names:
        put(root / "images" / name, label)


def retinopathy(root):
    """Five levels, three images of each in every part."""
    for name, folder, usages in (
        ("trainLabels.csv", "train", [None]),
        ("retinopathy_solution.csv", "test", ["Public", "Private"]),
    ):
        rows = [(f"{i}_left_{u}", i % 5, u) for u in usages for i in range(15)]
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "level", "Usage"] if usages[0] else ["image", "level"])
            writer.writerows([row if usages[0] else row[:2] for row in rows])
        for stem, level, _ in rows:
            put(root / folder / f"{stem}.jpeg", level)


def clevr(root, counts):
    """Scenes with random objects; returns {side: [[depth, ...], ...]}."""
    random = np.random.default_rng(2)
    scenes = {}
    for side, count in counts.items():
        listing = []
        for scene in range(count):
            depths = random.uniform(7, 13, 3 + scene % 8).round(3).tolist()
            name = f"CLEVR_{side}_{scene:06d}.png"
            listing.append({"image_filename": name, "objects": [{"pixel_coords": [1, 2, depth]} for depth in depths]})
            put(root / "images" / side / name)
            scenes.setdefault(side, []).append(depths)
        write(root / "scenes" / f"CLEVR_{side}_scenes.json", json.dumps({"info": {}, "scenes": listing}))
    return scenes


def kitti(root, videos, per_video):
    """Training images of several videos in random order; returns (each image's video, each image's nearest car)."""
    count = videos * per_video
    random = np.random.default_rng(3)
    order = random.permutation(count) + 1
    lines = [f"2011_09_26 2011_09_26_drive_{line // per_video:04d}_sync {line:010d}" for line in range(count)]
    write(root / "mapping/train_mapping.txt", "\n".join(lines) + "\n")
    write(root / "mapping/train_rand.txt", ",".join(map(str, order)) + "\n")
    nearest = []
    for image in range(count):
        objects = [("DontCare", -1000.0), ("Pedestrian", 1.0)]
        objects += [
            (kind, float(z)) for kind, z in zip(["Car", "Van", "Truck"], random.uniform(2, 60, image % 4), strict=False)
        ]
        text = "".join(f"{kind} 0 0 0 0 0 0 0 1 1 1 0 0 {z} 0\n" for kind, z in objects)
        write(root / f"training/label_2/{image:06d}.txt", text)
        put(root / f"training/image_2/{image:06d}.png", image)
        nearest.append(min([z for kind, z in objects[2:]], default=None))
    return [lines[line - 1].split()[1] for line in order], nearest


def dsprites(root, name, count):
    """Random binary images with random latents, as an npz; returns (images, latents)."""
    random = np.random.default_rng(4)
    images = random.integers(0, 2, (count, 64, 64)).astype(np.uint8)
    latents = np.stack([random.integers(0, size, count) for size in (1, 3, 6, 40, 32, 32)], axis=1)
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        root / name, metadata=np.array({"a": 1}), imgs=images, latents_classes=latents, latents_values=latents * 1.0
    )
    return images, latents


def smallnorb(root, stems, count, side=96):
    """SmallNORB's binary files; returns {split: (images, info)}."""
    random = np.random.default_rng(5)
    root.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, stem in stems.items():
        images = random.integers(0, 256, (count, 2, side, side)).astype(np.uint8)
        columns = [random.integers(0, 10, count), random.integers(0, 9, count), 2 * random.integers(0, 18, count)]
        info = np.stack([*columns, random.integers(0, 6, count)], axis=1).astype("<i4")
        head = np.array([0x1E3D4C55, 4, *images.shape], "<u4")
        (root / f"{stem}-dat.mat").write_bytes(head.tobytes() + images.tobytes())
        head = np.array([0x1E3D4C54, 2, count, 4, 1], "<u4")
        (root / f"{stem}-info.mat").write_bytes(head.tobytes() + info.tobytes())
        found[split] = images, info
    return found


def svhn(root, counts, compress=True):
    """SVHN's cropped digits; returns {split: (images_NHWC, stored labels)}."""
    random = np.random.default_rng(6)
    root.mkdir(parents=True, exist_ok=True)
    found = {}
    for split, count in counts.items():
        images, labels = random.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8), np.arange(count) % 10 + 1
        content = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)}
        scipy.io.savemat(root / f"{split}_32x32.mat", content, do_compression=compress)
        found[split] = images, labels
    return found
