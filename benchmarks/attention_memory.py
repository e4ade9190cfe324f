"""Peak memory of `attention_distance` beside a plain forward pass of the same batch: results/attention_memory.json.

Usage: python benchmarks/attention_memory.py [MODEL IMAGES]      ViT-L/16 and 128 images, some minutes on two cores.
"""

import json
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

import vitlab
from vitlab.inspection import attention_distance
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "attention_memory.json"
BOUND = 1.5


def main() -> None:
    """Measure each way in a process of its own, and store both and their ratio."""
    model, images = sys.argv[1:3] if len(sys.argv) == 3 else ("ViT-L/16", "128")
    measured = {}
    for way in ("nothing", "forward", "attention_distance"):
        command = [sys.executable, __file__, model, images, way]
        measured[way] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(way, measured[way], file=sys.stderr)
    ratio = measured["attention_distance"]["peak_mib"] / measured["forward"]["peak_mib"]
    stored = {
        "measured": date.today().isoformat(),
        "environment": environment(choose("cpu")),
        "model": model,
        "images": int(images),
        "peak_resident": measured,
        "ratio": round(ratio, 3),
        "bound": BOUND,
    }
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    print(f"{ratio:.2f} of a forward pass; bound {BOUND}")
    sys.exit(ratio >= BOUND)


def measure(name: str, images: int, way: str) -> None:
    """Print the peak resident memory of this process; "nothing" makes model and images and stops there."""
    torch.manual_seed(0)
    model = vitlab.create_model(name).eval()
    images_BCHW = torch.randn(images, 3, 224, 224)
    begun = time.perf_counter()
    with torch.inference_mode():
        if way == "forward":
            model(images_BCHW)
        if way == "attention_distance":
            attention_distance(model, images_BCHW)
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak_mib": round(peak), "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()
