"""How well and how fast `vitlab dedup` finds copies: benchmarks/results/dedup.json.

    python benchmarks/dedup.py                 quality on Fashion-MNIST and on photos, speed, the plan for 300 million
    python benchmarks/dedup.py --sheets DIR    and draw what was found wrongly, to be judged by eye
    python benchmarks/dedup.py --only speed    leave the stored quality as it is; or --only quality

Quality: see tests/data/planted.py for the protocol. Speed: random hashes of training images are looked up among those
of test images, with planted neighbours that must all be found; images are read from JPEGs of 500 x 375 pixels. A
look-up does not depend on how many there are, so a part of them is timed; --hashes 20000000 takes 40 minutes.
"""

# ruff: noqa: E402 (the path of the tests comes before what is imported from it)
import argparse
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import sklearn.datasets
from PIL import Image

# In place of this folder, whose data.py would hide the tests' folder of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1] / "tests")

from data.planted import RGB, MemorySource, Planted, cropped, fashion_images, photo_tiles, plant, png, score, search
from vitlab.datasets.array_files import FASHION_FOLDER
from vitlab.dedup.alignment import distances
from vitlab.dedup.duplicates import Thresholds
from vitlab.dedup.hamming import hamming_index
from vitlab.dedup.pair_sheet import Shown, pair_sheet
from vitlab.dedup.perceptual import VARIANTS, thumbnail, variant_hashes
from vitlab.dedup.perceptual import hashes as hashes_of
from vitlab.dedup.signatures import RECORD, blocks, sign_block
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "dedup.json"
SEEDS = (100, 101, 102)  # the thresholds were chosen on seeds 0 to 5
TESTS = 500
TRAIN = 10_000
PLAN_IMAGES = 300_000_000
PLAN_TESTS = 100_000


def main() -> None:
    """Measure, and store what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--only", choices=["quality", "speed"])
    parser.add_argument("--hashes", type=int, default=200_000, help="training hashes to look up")
    options = parser.parse_args()
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stored |= {"measured": date.today().isoformat(), "environment": environment(choose())}
    if options.only != "speed":
        stored["quality"] = quality(options.sheets)
        stored["recall_where_the_test_image_is_cropped_by_5_percent"] = cropped_tests()
    if options.only != "quality":
        stored["speed"] = speed(options.hashes)
        stored["plan"] = plan(stored["speed"])
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")


def quality(sheets: Path | None) -> list[dict[str, Any]]:
    """Recall and precision on every pool, seed and way of planting."""
    name = "fashion-mnist-full" if FASHION_FOLDER.is_dir() else "fashion-mnist"
    results = []
    for pool, images in ((name, fashion_images(name)), ("photos", photo_tiles())):
        for each in (True, False):
            copies = TESTS * 7 if each else TESTS
            others = min(TRAIN - copies, len(images) - TESTS)
            runs = [
                _measured(plant(images, seed, tests=TESTS, others=others, each=each), sheets and sheets / pool)
                for seed in SEEDS
            ]
            results.append({
                "pool": pool, "pool_images": len(images), "test_images": TESTS, "copies": copies,
                "training_images": others + copies,
                "recall": fmean(run["recall"] for run in runs), "precision": fmean(run["precision"] for run in runs),
                "runs": [{"seed": seed, **run} for seed, run in zip(SEEDS, runs, strict=True)],
            })  # fmt: skip
            print(pool, others, copies, results[-1]["recall"], results[-1]["precision"], file=sys.stderr)
    return results


def cropped_tests() -> dict[str, float]:
    """Recall where the test image is the cropped one, and training holds the whole; this is not part of the promise."""
    return {
        pool: _cropped_tests(images)
        for pool, images in (("fashion-mnist", fashion_images("fashion-mnist")), ("photos", photo_tiles()))
    }


def _cropped_tests(images: list[RGB]) -> float:
    random = np.random.default_rng(SEEDS[0])
    chosen = random.permutation(len(images))[:TESTS].tolist()
    whole = MemorySource("whole", [png(images[i]) for i in chosen])
    parts = MemorySource("parts", [png(cropped(images[i], random)) for i in chosen])
    with tempfile.TemporaryDirectory() as folder:
        pairs = search(whole, [parts], Path(folder)).pairs
    return sum(pair.train == pair.test for pair in pairs) / TESTS


def _measured(planted: Planted, sheets: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = search(planted.train, [planted.test], Path(folder))
    result = score(planted, found)
    false_of_others = sum(int(planted.original[train]) < 0 for train, _ in result.false)
    if sheets is not None and result.false:
        apart = {(pair.train, pair.test): pair.distance for pair in found.pairs}
        shown = [
            Shown((planted.train, i), (planted.test, j), f"{planted.change[i] or 'other'} {apart[i, j]:.2f}")
            for i, j in result.false
        ]
        sheets.mkdir(parents=True, exist_ok=True)
        pair_sheet("found but not planted", shown).save(sheets / f"{planted.train.name.replace(' ', '-')}.png")
    return {
        "recall": result.recall,
        "precision": result.precision,
        "precision_of_removed_images": result.removed_precision,
        "recall_by_change": result.by_change,
        "false_pairs_with_other_images": false_of_others,
        "false_pairs_with_copies_of_another": len(result.false) - false_of_others,
    }


def speed(hashes: int) -> dict[str, Any]:
    """Images through each stage a second of processor time, and memory."""
    random = np.random.default_rng(0)
    codes = random.integers(0, 2**64, PLAN_TESTS * VARIANTS, dtype=np.uint64)
    records = np.frombuffer(random.bytes(PLAN_TESTS * RECORD.itemsize), RECORD)  # held, as a search holds them
    index, build_seconds = _timed(lambda: hamming_index(codes))
    queries = random.integers(0, 2**64, hashes, dtype=np.uint64)
    planted = random.choice(hashes, 1000, replace=False)
    owners = random.integers(0, len(codes), 1000)
    for row, owner in zip(planted.tolist(), owners.tolist(), strict=True):
        bits = random.choice(64, int(random.integers(0, Thresholds().radius + 1)), replace=False)
        queries[row] = codes[owner] ^ np.bitwise_or.reduce(np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0))
    rates = {}
    for radius in (6, 8, Thresholds().radius):
        part = queries if radius == Thresholds().radius else queries[: hashes // 4]
        (rows, found), seconds = _timed(lambda part=part, radius=radius: index.within(part, radius))
        rates[str(radius)] = len(part) / seconds
    hits = set(zip(rows.tolist(), found.tolist(), strict=True))
    assert all(pair in hits for pair in zip(planted.tolist(), owners.tolist(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before pictures are made
    return {
        "test_images": len(records),
        "hashes_looked_up": hashes,
        "planted_neighbours": len(planted),
        "planted_neighbours_found": len(planted),
        "index_build_seconds": build_seconds,
        "look_ups_per_second_by_radius": rates,
        "look_ups_per_second_by_kind_of_hash": _crowding(random),
        "peak_memory_bytes": peak,
        "compared_pairs_per_second": _compared_per_second(random),
        "signed_images_per_second": _signed_per_second(),
        "record_bytes": RECORD.itemsize,
    }


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result, and the processor time that it took: what other processes take does not count."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


def _crowding(random: np.random.Generator) -> dict[str, float]:
    """Hashes of real images crowd together more than random ones: how much that costs, at the same number of codes."""
    thumbnails = np.stack([thumbnail(tile) for tile in photo_tiles()])
    real = variant_hashes(thumbnails).ravel()
    kinds = {
        "photos": (real, hashes_of(thumbnails)),
        "random": (
            random.integers(0, 2**64, len(real), np.uint64),
            random.integers(0, 2**64, len(thumbnails), np.uint64),
        ),
    }
    rates = {}
    for kind, (codes, asked) in kinds.items():
        index = hamming_index(codes)
        _, seconds = _timed(lambda index=index, asked=asked: index.within(asked, Thresholds().radius))
        rates[kind] = len(asked) / seconds
    return rates


def _compared_per_second(random: np.random.Generator) -> float:
    pictures = random.integers(0, 256, (4096, 32, 32), dtype=np.uint8)
    _, seconds = _timed(lambda: distances(pictures[:2048], pictures[2048:]))
    return 2048 / seconds


def _signed_per_second() -> float:
    """Reading, digests and small pictures of JPEGs of 500 x 375 pixels, on one thread."""
    encoded = []
    for photo in sklearn.datasets.load_sample_images().images:
        for left in range(0, 120, 4):
            packed = io.BytesIO()
            Image.fromarray(photo).resize((640, 480)).crop((left, left // 2, left + 500, left // 2 + 375)).save(
                packed, "JPEG", quality=90
            )
            encoded.append(packed.getvalue())
    source = MemorySource("speed", encoded * 10)
    with tempfile.TemporaryDirectory() as folder:
        _, seconds = _timed(lambda: sign_block(source, blocks(source)[0], Path(folder), workers=1))
    return len(source) / seconds


def plan(measured: dict[str, Any]) -> dict[str, Any]:
    """What 300 million training images against 100,000 test images take: an extrapolation, linear in the images.

    Nothing grows with the training set but the disk, so time is the number of images divided by the measured rate.
    """
    rates = measured["look_ups_per_second_by_radius"]
    return {
        "extrapolated": True,
        "training_images": PLAN_IMAGES,
        "test_images": PLAN_TESTS,
        "core_hours_reading_and_signing": PLAN_IMAGES / measured["signed_images_per_second"] / 3600,
        "core_hours_looking_up_by_radius": {radius: PLAN_IMAGES / rate / 3600 for radius, rate in rates.items()},
        "core_hours_comparing_100_million_candidates": 1e8 / measured["compared_pairs_per_second"] / 3600,
        "disk_bytes": PLAN_IMAGES * measured["record_bytes"],
        "memory_bytes_for_each_process": measured["peak_memory_bytes"],
    }


if __name__ == "__main__":
    main()
