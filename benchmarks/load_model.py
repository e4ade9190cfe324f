"""`load_model` of ViT-H/14 beside reading its file and building the model once: results/load_model.json.

Usage: python benchmarks/load_model.py [MODEL [ROUNDS]]     ViT-H/14, 632 M parameters, in 5 rounds: some minutes.

Each reading is taken in a process of its own, so that none has memory that another left warm; the file is read once
before, so that all find it in the page cache.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch
from safetensors.torch import load_file

import vitlab
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "load_model.json"
BOUND = 1.3
WAYS = ("read", "build", "load_model")


def main() -> None:
    """Measure in rounds, each way once a round, and store all readings."""
    model = sys.argv[1] if len(sys.argv) > 1 else "ViT-H/14"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        vitlab.save_model(vitlab.create_model(model), Path(folder) / "model")
        size = (Path(folder) / "model" / "model.safetensors").stat().st_size
        measure("read", model, folder)
        for _ in range(rounds):
            for way in WAYS:
                seconds[way].append(measure(way, model, folder))
                print(way, seconds[way][-1], file=sys.stderr)
    medians = {way: statistics.median(readings) for way, readings in seconds.items()}
    ratio = medians["load_model"] / (medians["read"] + medians["build"])
    stored = {
        "measured": date.today().isoformat(),
        "environment": environment(choose("cpu")),
        "model": model,
        "file_bytes": size,
        "seconds": seconds,
        "median_seconds": medians,
        "ratio": round(ratio, 3),
        "bound": BOUND,
    }
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    print(f"load_model takes {ratio:.2f} times as long as reading the file and building the model; bound {BOUND}")
    sys.exit(ratio > BOUND)


def measure(way: str, model: str, folder: str) -> float:
    """Seconds that one way takes in a new process."""
    command = [sys.executable, __file__, "--once", way, model, folder]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def once(way: str, model: str, folder: str) -> None:
    """Print the seconds of one way: "read" the file, "build" the model once, or `load_model`."""
    source = Path(folder) / "model"
    vitlab.create_model("ViT-Ti/16", layers=1)  # what is imported and set up at first use is not measured
    loaders = {
        "read": lambda: load_file(source / "model.safetensors"),
        "build": lambda: vitlab.create_model(model),
        "load_model": lambda: vitlab.load_model(source),
    }
    vitlab.load_model  # noqa: B018 (imported at first use)
    begun = time.perf_counter()
    result = loaders[way]()
    seconds = time.perf_counter() - begun
    assert result is not None
    print(round(seconds, 3))


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1:2] == ["--once"]:
        once(*sys.argv[2:])
    else:
        main()
