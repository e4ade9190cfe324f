"""A stored loss curve: whoever changes numerics without meaning to hears of it here.

`python tests/training/test_loss_curve.py` stores a new curve, for a change that is meant.
"""

import json
import math
import tempfile
from pathlib import Path

import numpy as np

from rounding import UNIT_ROUNDOFF
from vitlab.cli.main import main

STORED = Path(__file__).with_name("loss_curve.json")
STEPS, BATCH, TOKENS = 200, 12, 17
WEIGHT, MOVED, GRADIENT = 0.21, 0.7, 1.7  # measured: root mean square, Euclidean norm, mean norm over all steps
CHANGES = [
    f"steps={STEPS}", f"batch_size={BATCH}", "log_every=20", "checkpoint_every=0", "schedule.warmup_steps=20",
    "optimizer.learning_rate=3e-4", *(f"model.options.{key}={value}" for key, value in [
        ("hidden", 16), ("layers", 2), ("heads", 2), ("mlp", 32),
    ]),
]  # fmt: skip


def train(folder: Path) -> list[float]:
    """Mean losses of twenty steps each, of a tiny ViT on the bundled photos of clothes, with AdamW and clipping."""
    changes = [word for change in CHANGES for word in ("--set", change)]
    assert main(["pretrain", "demo-upstream", "--out", str(folder), *changes]) == 0
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def tolerance() -> np.ndarray:
    """How far rounding may move each loss of the curve: 3e-6, where starting weights off by one rounding move it 5e-8.

    1. A float32 loss is a sum over the longest sum's n terms: off by sqrt(n) u of itself, 2.3 (u = 2^-24).
    2. So is what training adds to the weights, MOVED in all, and at worst all along the gradient of the loss, whose
       norm is GRADIENT: both together move the loss by their product (see `rounding.rounding_bound`).
    3. Storing the weights rounds each by u of itself in each of t steps, up as often as down and whatever the gradient:
       together sqrt(t) u x their root mean square x GRADIENT.
    """
    steps = np.arange(1, STEPS // 20 + 1) * 20
    of_a_sum = math.sqrt(BATCH * TOKENS)
    return UNIT_ROUNDOFF * (of_a_sum * (2.3 + MOVED * GRADIENT) + np.sqrt(steps) * WEIGHT * GRADIENT)


def test_two_hundred_steps_have_the_losses_that_they_had(tmp_path):
    stored = json.loads(STORED.read_text())
    assert stored["changes"] == CHANGES
    apart = np.abs(np.array(train(tmp_path / "run")) - stored["loss"])
    assert (apart <= tolerance()).all(), f"losses differ by {apart}, where rounding explains {tolerance()}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        curve = {"changes": CHANGES, "loss": train(Path(made) / "run")}
    STORED.write_text(json.dumps(curve, indent=1) + "\n")
