"""Images a second of three loaders on one core, from the same JPEGs: benchmarks/results/data.json.

Photos of scikit-image and scikit-learn are cut and resized to 500 x 375 and 2000 x 1500, with a little noise, and
saved as JPEGs of quality 90. vitlab, torchvision and timm then make batches of 32 training images of 224 x 224 as
bytes: reading, decoding, random resized crop (5 to 100 % of the area), mirror image; and the same with two operations
of RandAugment at magnitude 10, applied always (timm would leave out half of them). Every loader works in the calling
thread, torch and BLAS have one thread, and the process is bound to one core. Rounds of the loaders alternate; the
medians over rounds are compared.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import skimage
import sklearn.datasets
import torch
from PIL import Image

from vitlab.data import decoding, loader
from vitlab.datasets.catalog import open_source
from vitlab.recipes.augmentation import Augmentation
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.runtime import choose, environment
from vitlab.shards.packing import pack

# torchvision's wheel registers operators for CUDA; beside a CPU torch it only imports once these two are declared.
LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm.data  # noqa: E402
from timm.data.loader import fast_collate  # noqa: E402
from torchvision import datasets, transforms  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "data.json"
SIZES = {"500x375": (500, 375, 128), "2000x1500": (2000, 1500, 32)}
BATCH = 32
ROUNDS = 9
PREPROCESSING = Preprocessing(size=(224, 224))
PHOTOS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "motorcycle_left.png",
    "ihc.png",
)

Pass = Callable[[], Iterator[object]]  # one pass over all images, batch by batch


def photos() -> list[Image.Image]:
    """The photos that come with the two packages."""
    folder = Path(skimage.__file__).parent / "data"
    found = [Image.open(folder / name).convert("RGB") for name in PHOTOS if (folder / name).exists()]
    return found + [Image.fromarray(image) for image in sklearn.datasets.load_sample_images().images]


def write_jpegs(folder: Path, width: int, height: int, count: int) -> int:
    """`count` photos of one size in two class folders, and a few for the test side; returns their mean bytes."""
    rng, originals, total = np.random.default_rng(0), photos(), 0
    for number in range(count):
        photo = originals[number % len(originals)]
        scale = max(width / photo.width, height / photo.height) * rng.uniform(1.0, 1.3)
        photo = photo.resize(
            (round(photo.width * scale) + 1, round(photo.height * scale) + 1), Image.Resampling.BICUBIC
        )
        left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
        pixels = np.asarray(photo.crop((left, top, left + width, top + height)), np.float64)
        noisy = Image.fromarray(np.clip(pixels + rng.normal(0, 2, pixels.shape), 0, 255).astype(np.uint8))
        for part in ("train", "val") if number < 4 else ("train",):
            path = folder / part / "ab"[number % 2] / f"{number:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noisy.save(path, quality=90)
            total += path.stat().st_size * (part == "train")
    return total // count


def vitlab_pass(folder: Path, augmentation: Augmentation) -> Pass:
    """Batches of vitlab; each pass is another epoch."""
    source = open_source(str(folder), "train")
    steps = len(source) // BATCH
    done = 0

    def one_pass() -> Iterator[object]:
        nonlocal done
        done += steps
        return loader.training_batches(
            source, PREPROCESSING, augmentation,
            batch_size=BATCH, seed=0, first_step=done - steps, steps=done, workers=0,
        )  # fmt: skip

    return one_pass


def torchvision_pass(folder: Path, randaugment: bool) -> Pass:
    """Its ImageFolder, transforms and PyTorch's DataLoader, uint8 tensors."""
    steps = [transforms.RandomResizedCrop(224, scale=(0.05, 1.0)), transforms.RandomHorizontalFlip()]
    if randaugment:
        steps.append(transforms.RandAugment(num_ops=2, magnitude=10))
    dataset = datasets.ImageFolder(str(folder / "train"), transforms.Compose([*steps, transforms.PILToTensor()]))
    return lambda: iter(torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True))


def timm_pass(folder: Path, randaugment: bool) -> Pass:
    """Its transforms and collation as its own training script has them, uint8 arrays for its prefetcher."""
    transform = timm.data.create_transform(
        224,
        is_training=True,
        use_prefetcher=True,
        scale=(0.05, 1.0),
        hflip=0.5,
        color_jitter=None,
        auto_augment="rand-m10-n2-p1" if randaugment else None,
        interpolation="bilinear",
    )
    dataset = timm.data.create_dataset("", root=str(folder / "train"))
    dataset.transform = transform
    return lambda: iter(
        torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=fast_collate)
    )


def without_simplejpeg(one_pass: Pass) -> Pass:
    """The same pass as on a machine that lacks the extra `fast`."""

    def plain() -> Iterator[object]:
        had, decoding.HAS_SIMPLEJPEG = decoding.HAS_SIMPLEJPEG, False
        try:
            yield from one_pass()
        finally:
            decoding.HAS_SIMPLEJPEG = had

    return plain


def rates(passes: dict[str, Pass], images: int) -> dict[str, list[float]]:
    """Images a second of every pass, round after round; the first round warms up and is not kept."""
    found: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(ROUNDS + 1):
        for name, one_pass in passes.items():
            begun = time.perf_counter()
            for _ in one_pass():
                pass
            if number:
                found[name].append(images / (time.perf_counter() - begun))
    return found


def measure(folder: Path) -> dict[str, dict[str, list[float]]]:
    """The rates of every loader on every kind of image."""
    crop = Augmentation(crop="inception")
    varied = Augmentation(crop="inception", randaugment_layers=2, randaugment_magnitude=10)
    found: dict[str, dict[str, list[float]]] = {}
    for name, (_, _, count) in SIZES.items():
        for kind, ours, randaugment in (("crop + flip", crop, False), ("crop + flip + RandAugment", varied, True)):
            plain = vitlab_pass(folder / name, ours)
            passes = {
                "vitlab": vitlab_pass(folder / name, ours),
                "vitlab without simplejpeg": without_simplejpeg(plain),
                "torchvision": torchvision_pass(folder / name, randaugment),
                "timm": timm_pass(folder / name, randaugment),
            }
            found[f"JPEG {name}, {kind}"] = rates(passes, count // BATCH * BATCH)
            if name == "500x375":
                packed = {encoding: vitlab_pass(folder / f"packed-{encoding}", ours) for encoding in ("raw", "jpeg")}
                found[f"packed, {kind}"] = rates(packed, count // BATCH * BATCH)
    return found


def main() -> None:
    """Make the images, measure, print the table and store it."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    loader.CACHE_BYTES = 0  # it would keep these few images decoded; a training set is larger
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sizes = {name: write_jpegs(folder / name, *size) for name, size in SIZES.items()}
        for encoding in ("raw", "jpeg"):
            for split in ("train", "test"):
                source = open_source(str(folder / "500x375"), split)
                pack(source, folder / f"packed-{encoding}", split, size=256, encoding=encoding)
        found = measure(folder)
    table = {
        kind: {name: {"median": statistics.median(values), "all": values} for name, values in row.items()}
        for kind, row in found.items()
    }
    for kind, row in table.items():
        print(kind)
        for name, numbers in row.items():
            print(f"  {name:28} {numbers['median']:8,.0f} images/s")
    versions = {name: version(name) for name in ("simplejpeg", "torchvision", "timm")}
    stored = {
        "measured": date.today().isoformat(),
        "environment": {**environment(choose("cpu")), **versions, "cores used": 1},
        "jpeg bytes": sizes,
        "images per second": table,
    }
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
