"""vitlab on the whole Fashion-MNIST beside timm's ViT in a plain loop and Hugging Face's Trainer.

    python benchmarks/fashion_mnist.py accuracy   the whole recipe, 3 seeds for each of the three; goes on where it was
    python benchmarks/fashion_mnist.py speed      short runs of the three, interleaved; medians of images/s end to end

Everyone has the same shape of model, batches, updates, AdamW, clipping, schedule and augmentation: those of the recipe
`fashion-mnist`, which was chosen on a tenth of the training images (benchmarks/results/fashion_mnist_tuning.json).
"End to end" is from opening the data to the accuracy on the 10,000 test images, imports left out; images/s are the
training images over that time. Peers read images from arrays in memory, and for speed each gets the number of loader
processes that suits it best. Every run is a process of its own. Needs Debian's package dataset-fashion-mnist, and
`pip install accelerate` beside the extra `dev`. Both write benchmarks/results/fashion_mnist.json.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.recipes import library
from vitlab.recipes.schema import Recipe, from_stored_toml, to_toml, with_changes

RESULTS = Path(__file__).parent / "results" / "fashion_mnist.json"
FRAMEWORKS = ("vitlab", "timm", "transformers")
SEEDS = (0, 1, 2)
TRIAL_STEPS = 1250
PACKAGES = ("torch", "timm", "transformers", "accelerate", "numpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("accuracy")
    speed = verbs.add_parser("speed")
    speed.add_argument("--steps", type=int, default=1250)
    speed.add_argument("--rounds", type=int, default=3)
    one = verbs.add_parser("one")  # what the other two start, again and again
    one.add_argument("framework", choices=FRAMEWORKS)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--steps", type=int)
    one.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    if given.verb == "accuracy":
        accuracy()
    elif given.verb == "speed":
        measure_speed(given.steps, given.rounds)
    else:
        print(json.dumps(run_one(given.framework, given.seed, given.steps, given.workers)))


def run_one(framework: str, seed: int, steps: int | None, workers: int) -> dict[str, Any]:
    """One run in this process; what it prints goes to stderr."""
    changes = [f"seed={seed}", *([f"steps={steps}"] if steps else [])]
    recipe = with_changes(library.load_recipe("fashion-mnist"), changes)
    with contextlib.redirect_stdout(sys.stderr):
        train = _vitlab() if framework == "vitlab" else _peer(framework)
        cpu, begun = time.process_time(), time.perf_counter()
        top1, images = train(recipe, workers)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "framework": framework, "seed": seed, "top1": top1, "images": images, "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2), "images_per_second": round(images / seconds, 1), "workers": workers,
    }  # fmt: skip


def _vitlab() -> Any:
    import torch._dynamo  # noqa: F401 - torch's optimizers do when they are first made, the peers' libraries before

    from vitlab.cli.training import run

    def train(recipe: Recipe, workers: int) -> tuple[float, int]:
        with tempfile.TemporaryDirectory() as folder:
            table = run(recipe, Path(folder) / "run", resume=False, device="cpu", title="vitlab")
        return table.numbers["top1"], recipe.total_steps(60_000) * recipe.batch_size

    return train


def _peer(framework: str) -> Any:
    import fashion_mnist_peers as peers

    trained = {"timm": peers.train_timm, "transformers": peers.train_transformers}[framework]

    def train(recipe: Recipe, workers: int) -> tuple[float, int]:
        outcome = trained(recipe, workers)
        return outcome.top1, outcome.images

    return train


def started(framework: str, **options: int) -> dict[str, Any]:
    """One run in a process of its own."""
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, "one", framework, *flags]
    # As vitlab's command line sets it; the peers run as Python starts them, which suits them better on a quiet machine.
    environment = {**os.environ, **({"GOMP_SPINCOUNT": "3000"} if framework == "vitlab" else {})}
    printed = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ).stdout
    return json.loads(printed.splitlines()[-1])


def accuracy() -> None:
    """The recipe as it is, by every framework with every seed; finished runs of the same recipe are kept."""
    stored = _stored()
    recipe = library.load_recipe("fashion-mnist")
    before = stored.get("accuracy", {})
    # Read back, so that a key that recipes have got since then does not count where it has its default.
    is_same = "recipe" in before and from_stored_toml(before["recipe"], str(RESULTS)) == recipe
    runs = before["runs"] if is_same else []
    workers = loader_processes()
    for seed in SEEDS:
        for framework in FRAMEWORKS:
            if any((run["framework"], run["seed"]) == (framework, seed) for run in runs):
                continue
            runs.append(started(framework, seed=seed, workers=workers.get(framework, 0)))
            print(runs[-1], file=sys.stderr, flush=True)
            summary = {name: _mean_and_deviation(runs, name) for name in FRAMEWORKS}
            found = {"top1": summary, **_speeds(runs)}
            _store("accuracy", {"recipe": to_toml(recipe), **found, "runs": runs})


def _mean_and_deviation(runs: list[dict[str, Any]], framework: str) -> dict[str, float | int | None]:
    found = [run["top1"] for run in runs if run["framework"] == framework]
    return {
        "seeds": len(found),
        "mean": statistics.mean(found) if found else None,
        "standard_deviation": statistics.stdev(found) if len(found) > 1 else None,
    }


def loader_processes() -> dict[str, int]:
    """The number of loader processes with which each peer is fastest; tried once on a machine, and stored."""
    if "loader_processes" not in _stored():
        cores = len(os.sched_getaffinity(0))
        tried = {
            framework: {
                str(count): started(framework, steps=TRIAL_STEPS, workers=count)["images_per_second"]
                for count in range(cores + 1)
            }
            for framework in FRAMEWORKS[1:]
        }
        _store("loader_processes", {"steps": TRIAL_STEPS, "images_per_second": tried})
    found = _stored()["loader_processes"]["images_per_second"]
    return {framework: int(max(rates, key=lambda count: rates[count])) for framework, rates in found.items()}


def measure_speed(steps: int, rounds: int) -> None:
    """Short runs, the three in turn."""
    workers = loader_processes()
    runs: list[dict[str, Any]] = []
    for number in range(rounds):
        for framework in FRAMEWORKS:
            runs.append({"round": number, **started(framework, steps=steps, workers=workers.get(framework, 0))})
            print(runs[-1], file=sys.stderr, flush=True)
    speeds = _speeds(runs)
    _store("speed", {"steps": steps, **speeds, "runs": runs})
    print(json.dumps(speeds))


def _speeds(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Medians of the images/s, and vitlab's over those of the peers."""
    by_name = {name: [run["images_per_second"] for run in runs if run["framework"] == name] for name in FRAMEWORKS}
    medians = {name: statistics.median(found) for name, found in by_name.items() if found}
    ratios = {name: round(medians["vitlab"] / medians[name], 3) for name in FRAMEWORKS[1:] if name in medians}
    return {"images_per_second": medians, "vitlab_over": ratios}


def _stored() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def _store(part: str, values: dict[str, Any]) -> None:
    from vitlab.runtime import choose, environment

    about = {**environment(choose("cpu")), **{package: version(package) for package in PACKAGES}}
    entry = {"measured": date.today().isoformat(), "environment": about, **values}
    files.write_json(RESULTS, {**_stored(), part: entry})


if __name__ == "__main__":
    main()
