"""How long a step of the recipe `fashion-mnist` takes on a processor: benchmarks/results/lanes.json.

With one lane and with as many as there are cores, under three ways in which OpenMP's threads wait for each other, on a
machine that is otherwise quiet and beside one process that keeps a core busy. Every reading is a process of its own:
the median of its steps. Rounds alternate; the medians of the rounds are stored, and all readings.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch

from vitlab import files
from vitlab.cli.main import SPINS
from vitlab.models.build import create_model
from vitlab.recipes import library
from vitlab.runtime import choose, environment
from vitlab.training.parallel import parallelize
from vitlab.training.state import start
from vitlab.training.step import update

RESULTS = Path(__file__).parent / "results" / "lanes.json"
WAITS = {"never spin": {"OMP_WAIT_POLICY": "PASSIVE"}, f"{SPINS} spins": {"GOMP_SPINCOUNT": SPINS}, "libgomp's": {}}
LOADS = ("quiet", "busy")
WARM_UP, STEPS = 20, 150


def milliseconds(lanes: int) -> float:
    """The median step of this process."""
    recipe, runtime = library.load_recipe("fashion-mnist"), choose("cpu")
    model = create_model(recipe.model.name, num_classes=10, image_size=recipe.model.image_size, **recipe.model.options)
    replica = parallelize(model, recipe.scale, runtime, lanes)
    optimizer = start(replica, recipe).optimizer
    replica.model.train()
    images_BCHW = torch.randn(recipe.batch_size, 3, 28, 28)
    labels_B = torch.randint(10, (recipe.batch_size,))
    shares = zip(images_BCHW.chunk(lanes), labels_B.chunk(lanes), strict=True)
    parts = [lambda share=share: share for share in shares]
    times = []
    for _ in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        update(
            replica, optimizer, parts, recipe.batch_size,
            objective=recipe.objective, clip_norm=recipe.optimizer.clip_norm, runtime=runtime,
        )  # fmt: skip
        times.append(time.perf_counter() - begun)
    return 1000 * statistics.median(times[WARM_UP:])


@contextmanager
def beside(load: str):
    """Inside, a process that never rests takes a core, where the load is "busy"."""
    if load == "quiet":
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def reading(lanes: int, wait: dict[str, str]) -> float:
    """What `milliseconds` finds in a fresh process."""
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, __file__, "--one", str(lanes)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=plain | wait).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", type=int, metavar="LANES")
    given = parser.parse_args()
    if given.one:
        print(milliseconds(given.one))
        return
    several = torch.get_num_threads()
    cases = [(load, wait, lanes) for load in LOADS for wait in WAITS for lanes in (1, several)]
    found: dict[tuple[str, str, int], list[float]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for load, wait, lanes in cases:
            with beside(load):
                found[load, wait, lanes].append(round(reading(lanes, WAITS[wait]), 2))
    rows = [
        {"machine": load, "threads": wait, "lanes": lanes, "median_ms": statistics.median(all_ms), "all_ms": all_ms}
        for (load, wait, lanes), all_ms in found.items()
    ]
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
    about = environment(choose("cpu"))
    files.write_json(RESULTS, {"measured": date.today().isoformat(), "environment": about, "milliseconds a step": rows})


if __name__ == "__main__":
    main()
