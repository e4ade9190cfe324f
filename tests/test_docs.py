"""Every command and Python example on the pages in docs runs, in a folder that has what the pages mention."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import sklearn.datasets
from PIL import Image

from data import layouts
from vitlab.cli.main import main
from vitlab.datasets.catalog import open_source
from vitlab.recipes import library
from vitlab.recipes.schema import to_toml, with_changes

DOCS = Path(__file__).parents[1] / "docs"
COMMAND = re.compile(r"```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
# Training is made small: a few steps of a tiny model; everything else of a command is run as it is written.
STEPS = ["--steps", "2", "--set", "batch_size=4"]
SIZE = ["--set", "model.image_size=32"]
MODEL = [
    f"--set=model.options.{key}={value}" for key, value in {"hidden": 16, "layers": 1, "heads": 2, "mlp": 16}.items()
]
# Names that stand for the reader's own things.
MEANT = {"SOURCE": "photos", "MODEL": "model", "shards/train-{00000..29999}.tar": "photos"}
# What is not a verb of vitlab: set-up, programs that start it on other machines, and long measurements.
NOT_RUN = ("pip", "make", "torchrun", "sbatch", "srun", "kubectl", "source", "export")


def smaller(words):
    """What is added to a command that trains."""
    verb, starts_from_weights = words[0], words[0] == "finetune" or "--from" in words
    if verb not in ("pretrain", "finetune", "study") or len(words) == 1:
        return []
    added = [*STEPS, *([] if "demo-upstream" in words else SIZE), *([] if starts_from_weights else MODEL)]
    own_data = any(word.startswith("table4/") for word in words) and "--data" not in words
    return [*added, "--data", "photos"] if own_data else added


def commands(page):
    blocks = "\n".join(COMMAND.findall(page.read_text())).replace("\\\n", " ")
    return [line[2:] for line in blocks.splitlines() if line.startswith("$ ")]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if any(c.startswith("vitlab ") for c in commands(page))]


def make_photos(folder, seed):
    """Two classes of 15 pieces of real photos."""
    rng = np.random.default_rng(seed)
    china, flower = sklearn.datasets.load_sample_images().images
    for name, photos in {
        "flowers": (flower, skimage.data.coffee()),
        "houses": (china, skimage.data.astronaut()),
    }.items():
        (folder / name).mkdir(parents=True)
        for number in range(15):
            photo = photos[number % 2]
            top, left = (int(rng.integers(side - 120)) for side in photo.shape[:2])
            Image.fromarray(photo[top : top + 120, left : left + 120]).save(folder / name / f"{number}.jpg")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", 0)
    make_photos(tmp_path / "exam", 1)
    (tmp_path / "docs").symlink_to(DOCS)
    mine = with_changes(library.load_recipe("scratch"), ["data.source=photos"])
    (tmp_path / "mine.toml").write_text(to_toml(mine))
    assert main(["pretrain", "mine.toml", "--out", "model", *STEPS, *SIZE, *MODEL]) == 0
    ran = 0
    for command in commands(page):
        program, *words = shlex.split(command, comments=True)
        if program in NOT_RUN:
            continue
        words = [MEANT.get(word, word) for word in words]
        assert program == "vitlab", f"{page.name} has a command that no test knows: {command}"
        assert main([*words, *smaller(words)]) == 0, (command, capsys.readouterr().err)
        capsys.readouterr()
        ran += 1
    assert ran


def test_every_python_example_runs(tmp_path):
    """A manifest is the one thing on the pages that is made in Python; data sets lie in /data there."""
    layouts.pets(tmp_path / "pets", 28, 1)
    examples = {page.name: PYTHON.findall(page.read_text()) for page in DOCS.glob("*.md")}
    assert {name: len(found) for name, found in examples.items() if found} == {"datasets.md": 1}
    exec(compile(examples["datasets.md"][0].replace("/data/", f"{tmp_path}/"), "datasets.md", "exec"), {})
    assert (tmp_path / "pets/splits/train800.json").is_file()
    assert len(open_source(f"vtab/pets={tmp_path / 'pets'}", "dev-train")) == 800
