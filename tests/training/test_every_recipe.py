"""Every named recipe makes one step, at a tiny size, by the command line.

Only sizes are changed: of the model, of images and of batches. All runs are in one process.
"""

import json

import numpy as np
import pytest
from PIL import Image

from vitlab.cli.main import main
from vitlab.recipes import library, zoo
from vitlab.recipes.configs import ResNetConfig
from vitlab.recipes.schema import Recipe

IMAGES = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two classes, every image of another size."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        for split, count in (("train", IMAGES), ("val", 2)):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                size = (20 + number, 24, 3)
                pixels = random.integers(0, 128, size) + (128 if label == "light" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.png")
    return str(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, images):
    """What fine-tuning starts from."""
    out = str(tmp_path_factory.mktemp("upstream") / "run")
    words = ["pretrain", "scratch", "--model", "ViT-Ti/7", "--data", images, "--out", out, "--steps", "1"]
    options = {**_tiny_vit(library.load_recipe("scratch")), "model.image_size": 28, "batch_size": 4}
    assert main([*words, *_sets(options)]) == 0
    return out


def _sets(changes):
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


def _tiny_vit(recipe: Recipe):
    options = {"hidden": 16, "layers": 1, "mlp": 16, "heads": 2}
    if "representation" in recipe.model.options:
        options["representation"] = 16
    return {f"model.options.{name}": value for name, value in options.items()}


def tiny(recipe: Recipe, verb: str):
    """What `--set` changes to make a recipe tiny."""
    sizes = {"batch_size": 4, "model.image_size": 28}
    if verb == "finetune":
        return sizes
    config = zoo.configure(recipe.model.name, {**recipe.model.options, "image_size": recipe.model.image_size or 224})
    if isinstance(config, ResNetConfig):
        return {**sizes, "model.options.blocks": "[1]", "model.options.width": 0.5}
    name = {} if config.resnet is None else {"model.name": "R+ViT-Ti/16"}
    return {**sizes, **name, **_tiny_vit(recipe), "model.options.patch": 7}


@pytest.mark.long
def test_every_recipe_makes_a_step(tmp_path, images, weights, capsys):
    for entry in library.entries():
        recipe, out = entry.recipe, tmp_path / entry.name.replace("/", "-")
        words = ["--data", images, "--steps", "1", "--out", str(out), *_sets(tiny(recipe, entry.verb))]
        begun = ["pretrain", entry.name] if entry.verb == "pretrain" else ["finetune", weights, "--recipe", entry.name]
        assert main([*begun, *words]) == 0, f"{entry.name}: {capsys.readouterr().err}"
        lines = (out / "metrics.jsonl").read_text().splitlines()
        loss = next(json.loads(line)["loss"] for line in lines if '"loss"' in line)
        assert np.isfinite(loss), entry.name
