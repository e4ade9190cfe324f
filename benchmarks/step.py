"""One training step of vitlab beside timm's model compiled, on a GPU: benchmarks/results/step.json.

    python benchmarks/step.py [--models S/16,B/16,L/16,H/14] [--rounds 7] [--batches 64,128,256,512]

A step is forward, backward, clipping at norm 1 and fused AdamW in bfloat16 with float32 weights, on synthetic images of
224 x 224 that lie on the device. Both get the batch size that suits them best, found by a short run of each size that
fits; then rounds of the two alternate, and the medians are compared. MFU is 3 x the forward FLOPs of the whole model
(multiply-add = 2) over the device's dense bfloat16 peak. `--device cpu --models Ti/16 --batches 2 --steps 1` tries the
script without a GPU.
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

from vitlab.models.build import build
from vitlab.recipes import cost, hardware, zoo
from vitlab.recipes.schema import ObjectiveConfig, OptimizerConfig, ScaleConfig
from vitlab.runtime import Runtime, choose, environment
from vitlab.training import parallel
from vitlab.training.optimizers import build_optimizer
from vitlab.training.step import update

if torch.version.cuda is None:
    # Beside a CPU torch, torchvision's wheel, which timm imports, wants these two operators to be declared.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm

RESULTS = Path(__file__).parent / "results" / "step.json"
PEERS = {
    "Ti/16": "vit_tiny_patch16_224",
    "S/16": "vit_small_patch16_224",
    "B/16": "vit_base_patch16_224",
    "L/16": "vit_large_patch16_224",
    "H/14": "vit_huge_patch14_224",
}
CLASSES = 1000
RATE = 1e-3

Step = Callable[[], object]


def ours(name: str, batch: int, runtime: Runtime, compiled: bool) -> Step:
    """A step of vitlab's own training: its model, spread as a run would, and its update."""
    model = build(zoo.configure(f"ViT-{name}", {"num_classes": CLASSES, "image_size": 224})).to(runtime.device)
    replica = parallel.parallelize(model, ScaleConfig(compile="step" if compiled else "none"), runtime)
    replica.model.train()
    optimizer = build_optimizer(replica.weights.values(), OptimizerConfig(kind="adamw", learning_rate=RATE))
    images, labels = data(batch, runtime)

    def step() -> object:
        return update(
            replica, optimizer, [lambda: (images, labels)], batch,
            objective=ObjectiveConfig(), clip_norm=1.0, runtime=runtime,
        )  # fmt: skip

    return step


def timms(name: str, batch: int, runtime: Runtime, compiled: bool) -> Step:
    """A step of timm's model in a plain loop with the same optimizer, clipping and precision."""
    model = timm.create_model(PEERS[name], num_classes=CLASSES).to(runtime.device).train()
    called = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    images, labels = data(batch, runtime)

    def step() -> object:
        optimizer.zero_grad(set_to_none=True)
        with runtime.autocast():
            logits = called(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        return loss

    return step


MAKERS = {"vitlab": ours, "timm": timms}


def data(batch: int, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised noise and labels on the device."""
    images = torch.randn(batch, 3, 224, 224, device=runtime.device)
    return images, torch.randint(CLASSES, (batch,), device=runtime.device)


def wait(runtime: Runtime) -> None:
    """Until the device has done all it was given."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)


def rate(step: Step, batch: int, steps: int, runtime: Runtime) -> float:
    """Images a second over `steps` steps."""
    wait(runtime)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    wait(runtime)
    return batch * steps / (time.perf_counter() - begun)


def free(runtime: Runtime) -> None:
    """Gives memory back before another model is made."""
    gc.collect()
    torch.compiler.reset()
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()


def best_batch(who: str, name: str, given: argparse.Namespace, runtime: Runtime) -> tuple[int, dict[str, float]]:
    """The batch size of the highest rate among those that fit, and every size's rate."""
    found: dict[str, float] = {}
    for batch in given.batches:
        free(runtime)
        try:
            step = MAKERS[who](name, batch, runtime, not given.eager)
            rate(step, batch, 3, runtime)  # compiles
            found[str(batch)] = rate(step, batch, given.steps, runtime)
        except torch.OutOfMemoryError:
            break
        finally:
            step = None  # type: ignore[assignment]
    assert found, f"{who}: no batch of {name} fits"
    return int(max(found, key=lambda size: found[size])), found


def compare(name: str, given: argparse.Namespace, runtime: Runtime) -> dict[str, object]:
    """Both at their best batch sizes, round by round."""
    sweeps = {who: best_batch(who, name, given, runtime) for who in MAKERS}
    free(runtime)
    steps = {who: MAKERS[who](name, batch, runtime, not given.eager) for who, (batch, _) in sweeps.items()}
    rounds: dict[str, list[float]] = {who: [] for who in MAKERS}
    for number in range(given.rounds + 1):
        for who, step in steps.items():
            found = rate(step, sweeps[who][0], given.steps, runtime)
            if number:
                rounds[who].append(found)
    medians = {who: statistics.median(values) for who, values in rounds.items()}
    flops = 3 * cost.flops(zoo.configure(f"ViT-{name}", {"num_classes": CLASSES, "image_size": 224}))
    peak = peak_of(runtime)
    return {
        "images per second": {
            who: {
                "median": medians[who],
                "all": rounds[who],
                "batch": sweeps[who][0],
                "sweep": sweeps[who][1],
                "mfu": None if peak is None else medians[who] * flops / peak,
            }
            for who in MAKERS
        },
        "ratio": medians["vitlab"] / medians["timm"],
        "peak memory": torch.cuda.max_memory_allocated() if runtime.device.type == "cuda" else None,
    }


def peak_of(runtime: Runtime) -> float | None:
    """The device's dense bfloat16 peak; none where it is not known."""
    if runtime.device.type != "cuda":
        return None
    known = hardware.recognise(torch.cuda.get_device_name(runtime.device))
    return known.peaks.get("bfloat16") if known else None


def main() -> None:
    """Measure every model, store after each one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--models", type=lambda text: text.split(","), default=["S/16", "B/16", "L/16", "H/14"])
    parser.add_argument(
        "--batches", type=lambda text: [int(size) for size in text.split(",")], default=[64, 128, 256, 512]
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    runtime = choose(given.device)
    torch.backends.cuda.matmul.allow_tf32 = True
    stored = {
        "measured": date.today().isoformat(),
        "environment": {**environment(runtime), "timm": version("timm"), "compiled": not given.eager},
        "models": {},
    }
    for name in given.models:
        stored["models"][name] = found = compare(name, given, runtime)
        given.out.write_text(json.dumps(stored, indent=2) + "\n")
        print(f"{name}: {found['ratio']:.2f} x timm", flush=True)
        free(runtime)


if __name__ == "__main__":
    main()
