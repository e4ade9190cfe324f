"""Measures the memory that training takes on the CPU beside what the arithmetic says: benchmarks/results/memory.json.

Each measurement is a process of its own: the growth of its largest resident size over two updates, from after torch,
its libraries and a first small model were loaded. The C library is told to give freed memory back at once, so that
what it keeps for later is not taken for the model's.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import torch

from vitlab.models.build import create_model
from vitlab.recipes import memory, zoo
from vitlab.recipes.schema import ObjectivePart, OptimizerPart
from vitlab.runtime import choose, environment
from vitlab.training.optimizers import build_optimizer
from vitlab.training.parallel import Replica
from vitlab.training.step import update

RESULTS = Path(__file__).parent / "results" / "memory.json"
CASES = [(name, batch) for name, batches in (
    ("ViT-Ti/16", (4, 8, 16)), ("ViT-S/16", (4, 8, 16)), ("ViT-B/16", (2, 4, 8)),
) for batch in batches]  # fmt: skip


def resident(field):
    """VmRSS, what the process has now, or VmHWM, the most it ever had, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def train(name, batch, image_size=224):
    """Two updates on random images; the second one has the optimizer's moments too."""
    model = create_model(name, image_size=image_size)
    replica = Replica(model, dict(model.named_parameters()), {}, model)
    optimizer = build_optimizer(replica.weights.values(), OptimizerPart())
    for _ in range(2):
        images_BCHW, labels_B = torch.randn(batch, 3, image_size, image_size), torch.zeros(batch, dtype=torch.long)
        update(
            replica, optimizer, [lambda images=images_BCHW, labels=labels_B: (images, labels)], batch,
            objective=ObjectivePart(), clip_norm=1.0, runtime=choose("cpu"),
        )  # fmt: skip


def measure(name, batch):
    """Bytes by which this process grew at most, in training."""
    torch.set_num_threads(1)
    train("ViT-Ti/32", 1, image_size=32)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    train(name, batch)
    return resident("VmHWM") - before


def compare(name, batch):
    """One case, measured in a process of its own, beside what is predicted."""
    command = [sys.executable, __file__, "--one", name, str(batch)]
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    measured = int(subprocess.run(command, check=True, capture_output=True, text=True, env=given).stdout)
    predicted = memory.training_memory(zoo.get(name), batch).peak
    return {"model": name, "batch": batch, "measured": measured, "predicted": predicted,
            "ratio": round(predicted / measured, 4)}  # fmt: skip


def main():
    """All cases; exits with 1 where one is off by more than 15 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "BATCH"))
    given = parser.parse_args()
    if given.one:
        print(measure(given.one[0], int(given.one[1])))
        return 0
    rows = []
    for name, batch in CASES:
        rows.append(compare(name, batch))
        print(rows[-1], file=sys.stderr)
    stored = {"measured": date.today().isoformat(), "tolerance": 0.15,
              "environment": {**environment(choose("cpu")), "threads": 1}, "cases": rows}  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    return int(any(abs(row["ratio"] - 1) > stored["tolerance"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
