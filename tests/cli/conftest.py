"""A small trained run and a folder of real photos, made once for all tests of the command line."""

import io
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from sklearn.datasets import load_sample_images

from vitlab.cli.main import main

QUICK = ["--set", "model.options.hidden=16", "--set", "model.options.layers=1", "--set", "model.options.heads=2"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A run of a few steps on the bundled Fashion-MNIST."""
    out = tmp_path_factory.mktemp("runs") / "upstream"
    words = ["pretrain", "demo-upstream", "--steps", "6", "--out", str(out), "--set", "batch_size=32", *QUICK]
    assert main(words) == 0
    return out


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Real photos of different sizes, JPEG and PNG, grey and colour, in the layout CLASS/*.

    Two classes: close-up textures of nature, and buildings or people; pieces of a few photos serve as images.
    """
    folder = tmp_path_factory.mktemp("photos")
    china, flower = load_sample_images().images
    things = {
        "grass": [skimage.data.grass(), skimage.data.gravel(), skimage.data.brick()],
        "scene": [china, flower, skimage.data.astronaut(), skimage.data.coffee(), skimage.data.camera()],
    }
    random = np.random.default_rng(0)
    for name, pictures in things.items():
        (folder / name).mkdir()
        for number in range(12):
            picture = pictures[number % len(pictures)]
            height, width = (int(random.integers(60, 200)) for _ in range(2))
            top, left = (
                int(random.integers(0, side - size)) for side, size in zip(picture.shape, (height, width), strict=False)
            )
            piece = Image.fromarray(picture[top : top + height, left : left + width])
            suffix = "png" if number % 3 == 0 else "JPG" if number % 3 == 1 else "jpeg"
            piece.save(folder / name / f"{name} {number}.{suffix}", quality=90)
    return folder


@pytest.fixture
def broken_photos(photos: Path, tmp_path: Path) -> Path:
    """The same folder with one truncated JPEG among the images."""
    copy = tmp_path / "broken"
    for path in photos.rglob("*.*"):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    data = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).save(data, format="JPEG")
    for number in range(8):
        (copy / "scene" / f"cut {number}.jpg").write_bytes(data.getvalue()[:2000])
    return copy
