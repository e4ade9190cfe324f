"""Runs, tables and figures on disk, as the command line leaves them."""

import json
import math

import numpy as np
import torch

from vitlab.models.build import build
from vitlab.recipes.schema import DataConfig, ModelSpec, Recipe, to_toml
from vitlab.recipes.zoo import ViTConfig
from vitlab.report.figures import draw_inspection


def write_run(path, steps=200, name="a run"):
    recipe = Recipe(
        name=name, about="a small model, quickly", steps=steps, batch_size=64,
        model=ModelSpec(name="ViT-Ti/4", image_size=28), data=DataConfig(source="fashion-mnist"),
    )  # fmt: skip
    path.mkdir(parents=True)
    (path / "recipe.toml").write_text(to_toml(recipe))
    (path / "environment.json").write_text(
        json.dumps({"device": "cpu", "cores": 2, "torch": "2.13.0", "data": "9f" * 32})
    )
    lines = []
    for step in range(2, steps + 1, 2):
        done = step / steps
        lines.append({"step": step, "loss": 2.3 * math.exp(-3 * done), "accuracy": 0.1 + 0.8 * done,
                      "learning_rate": 1e-3 * (1 - done), "images_per_second": 900 + step % 7})  # fmt: skip
        if step % 50 == 0:
            lines.append({"step": step, "test_top1": 0.1 + 0.75 * done, "test_loss": 2.4 * math.exp(-2.5 * done)})
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_table(
        path / "results" / "evaluate.json", "Accuracy", ["class", "images", "top-1"], [["shoe", 12000, "87.1 %"]]
    )
    return path


def write_table(path, title, columns, rows, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"title": title, "columns": columns, "rows": rows, **more}))


def draw_figures(out, names=("one", "two")):
    torch.manual_seed(0)
    config = ViTConfig(4, 32, 3, 32, 4, image_size=(12, 20), num_classes=3)
    model = build(config)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 12, 20, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    return draw_inspection(model, pictures, images, list(names), out, labels=[0, 2], classes=["shoe", "bag", "hat"])
