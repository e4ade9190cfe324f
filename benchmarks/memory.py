"""Measures the memory of training and compares it with the prediction: benchmarks/results/memory.json.

On the CPU, in float32, each measurement is a process of its own: the growth of its peak resident size over two updates,
after torch, its libraries and a first small model were loaded. The C library is set to return freed memory at once, so
that what it would keep for later is not counted as the model's.

    python benchmarks/memory.py --device cuda

measures bfloat16 training on a GPU: the growth of the peak memory of its tensors (results/memory_cuda.json).
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
from vitlab.recipes.schema import ObjectiveConfig, OptimizerConfig
from vitlab.runtime import choose, environment
from vitlab.training.optimizers import build_optimizer
from vitlab.training.parallel import Replica
from vitlab.training.step import update

RESULTS = Path(__file__).parent / "results"
TOLERANCE = 0.15
CASES = {
    "cpu": (("ViT-Ti/16", (4, 8, 16)), ("ViT-S/16", (4, 8, 16)), ("ViT-B/16", (2, 4, 8))),
    "cuda": (("ViT-Ti/16", (64, 256, 1024)), ("ViT-S/16", (64, 256, 1024)), ("ViT-B/16", (32, 128, 512)),
             ("ViT-L/16", (8, 64, 256)), ("ViT-H/14", (8, 64))),
}  # fmt: skip


def resident(field):
    """VmRSS, the current resident size of the process, or VmHWM, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def train(name, batch, runtime, image_size=224):
    """Two updates on random images; during the second the optimizer's moments exist."""
    model = create_model(name, image_size=image_size).to(runtime.device)
    replica = Replica(model, dict(model.named_parameters()), {}, model)
    optimizer = build_optimizer(replica.weights.values(), OptimizerConfig())
    for _ in range(2):
        images_BCHW = torch.randn(batch, 3, image_size, image_size, device=runtime.device)
        labels_B = torch.zeros(batch, dtype=torch.long, device=runtime.device)
        update(
            replica, optimizer, [lambda images=images_BCHW, labels=labels_B: (images, labels)], batch,
            objective=ObjectiveConfig(), clip_norm=1.0, runtime=runtime,
        )  # fmt: skip


def measure_on_cpu(name, batch):
    """Peak growth of this process in training, in bytes."""
    torch.set_num_threads(1)
    train("ViT-Ti/32", 1, choose("cpu"), image_size=32)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident("VmRSS")
    train(name, batch, choose("cpu"))
    return resident("VmHWM") - before


def in_a_process_of_its_own(name, batch):
    """`measure_on_cpu` in a new process."""
    command = [sys.executable, __file__, "--one", name, str(batch)]
    given = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=given).stdout)


def measure_on_gpu(name, batch):
    """Peak growth of the GPU's tensors in training, in bytes; the libraries' workspaces are allocated before."""
    train("ViT-Ti/32", 1, choose("cuda"), image_size=32)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    train(name, batch, choose("cuda"))
    return torch.cuda.max_memory_allocated() - before


def compare(name, batch, device):
    """One case: measured and predicted bytes."""
    measured = (measure_on_gpu if device == "cuda" else in_a_process_of_its_own)(name, batch)
    precision = "bfloat16" if device == "cuda" else "float32"
    predicted = memory.training_memory(zoo.get(name), batch, precision=precision).peak
    return {"model": name, "batch": batch, "measured": measured, "predicted": predicted,
            "ratio": round(predicted / measured, 4)}  # fmt: skip


def main():
    """All cases; exits with 1 if one is off by more than 15 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=CASES, default="cpu")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "BATCH"))
    given = parser.parse_args()
    if given.one:
        print(measure_on_cpu(given.one[0], int(given.one[1])))
        return 0
    rows = []
    for name, batches in CASES[given.device]:
        for batch in batches:
            rows.append(compare(name, batch, given.device))
            print(rows[-1], file=sys.stderr)
    about = environment(choose(given.device)) | ({"threads": 1} if given.device == "cpu" else {})
    stored = {"measured": date.today().isoformat(), "tolerance": TOLERANCE, "environment": about, "cases": rows}
    name = "memory.json" if given.device == "cpu" else "memory_cuda.json"
    (RESULTS / name).write_text(json.dumps(stored, indent=2) + "\n")
    return int(any(abs(row["ratio"] - 1) > TOLERANCE for row in rows))


if __name__ == "__main__":
    sys.exit(main())
