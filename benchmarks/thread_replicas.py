"""Replicas in threads, end to end: `vitlab pretrain fashion-mnist --steps 500`.

Stored in benchmarks/results/thread_replicas.json.

With one replica of the model and with as many as the recipe takes by itself, under two ways in which OpenMP's threads
wait for each other: libgomp's own, and the number of spins that the command line sets. Every reading is a process of
its own; its throughput is the median of the lines of metrics.jsonl, and its time that of the complete command, with
start, data and the evaluation of 10,000 images. Rounds alternate; medians and all readings are stored.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from vitlab import files
from vitlab.cli.main import SPINS
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "thread_replicas.json"
# The verb without the command line's main, which sets the number of spins.
VERB = """import typer, vitlab.cli.pretrain as page
typer.main.get_command(page.app).main({}, standalone_mode=False)()"""
WAITS = {"libgomp's": {}, f"{SPINS} spins": {"GOMP_SPINCOUNT": SPINS}}


def reading(replicas: str, wait: dict[str, str], steps: int) -> tuple[float, float]:
    """Images per second in training, and seconds of the complete command."""
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = ["fashion-mnist", "--steps", str(steps), "--out", str(run), f"--set=scale.thread_replicas={replicas}"]
        begun = time.perf_counter()
        code = VERB.format(words)
        subprocess.run([sys.executable, "-c", code], check=True, env=plain | wait, capture_output=True)
        seconds = time.perf_counter() - begun
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return statistics.median(speeds), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=500)
    given = parser.parse_args()
    cases = [(replicas, wait) for replicas in ("auto", "1") for wait in WAITS]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for replicas, wait in cases:
            found[replicas, wait].append(reading(replicas, WAITS[wait], given.steps))
    rows = [
        {
            "scale.thread_replicas": replicas,
            "threads wait": wait,
            "images_per_second": round(statistics.median(speed for speed, _ in readings)),
            "seconds": round(statistics.median(seconds for _, seconds in readings), 1),
            "all_images_per_second": [round(speed) for speed, _ in readings],
            "all_seconds": [round(seconds, 1) for _, seconds in readings],
        }
        for (replicas, wait), readings in found.items()
    ]
    for row in rows:
        print(json.dumps(row), file=sys.stderr)
    about = {"measured": date.today().isoformat(), "environment": environment(choose("cpu"))}
    files.write_json(RESULTS, {**about, "steps": given.steps, "rows": rows})


if __name__ == "__main__":
    main()
