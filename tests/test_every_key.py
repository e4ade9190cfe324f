"""Every key of a recipe, under everything that trains: honoured, or refused in one line.

The schema is walked, so that a new key without a line in `KEYS` fails.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vitlab
from vitlab import estimator, files
from vitlab.cli import training
from vitlab.cli.main import main
from vitlab.data import loader
from vitlab.datasets.catalog import open_source
from vitlab.dedup.clean_list import write_clean_list
from vitlab.errors import UserError
from vitlab.experiments import study, vtab
from vitlab.recipes.effects import value_at
from vitlab.recipes.schema import Recipe, from_toml, with_changes
from vitlab.shards.packing import pack
from vitlab.training import parallel, trainer

from .experiments.vtab_folders import fewer_training_images, write_all

TINY = {"hidden": 8, "layers": 1, "mlp": 8, "heads": 2}
BASE = Recipe(
    name="base", steps=4, batch_size=8, checkpoint_every=0, optimizer={"learning_rate": 0.05},
    model={"name": "ViT-Ti/4", "image_size": 8, "options": TINY},
    augmentation={"flip": False}, schedule={"decay": "linear"}, scale={"thread_replicas": 1}, data={"workers": 0},
)  # fmt: skip

# key -> (another value, what else must be set for it to have an effect, where its effect is seen)
KEYS: dict[str, tuple[str, list[str], str]] = {
    "name": ("other", [], "recipe"),
    "about": ("words", [], "recipe"),
    "steps": ("2", [], "metrics"),
    "epochs": ("0.5", [], "metrics"),
    "batch_size": ("4", [], "weights"),
    "seed": ("1", [], "weights"),
    "averaging": ("0.5", [], "weights"),
    "init_from": ("WEIGHTS", ["model.options={}"], "weights"),
    "evaluate_every": ("2", [], "metrics"),
    "checkpoint_every": ("2", [], "checkpoints"),
    "log_every": ("2", [], "metrics"),
    "log": ("tensorboard", [], "tensorboard"),
    "model.name": ("ViT-S/4", ["model.options={layers=1}"], "weights"),
    "model.image_size": ("12", [], "weights"),
    "model.options": ("{hidden=8, layers=2, mlp=8, heads=2}", [], "weights"),
    "data.source": ("OTHER", [], "weights"),
    "data.share": ("0.5", [], "weights"),
    "data.bad_images": ("skip", ["data.source=BROKEN"], "accepted"),
    "data.exclude": ("LIST", [], "weights"),
    "data.order": ("shards", ["data.source=SHARDS"], "weights"),
    "data.workers": ("2", [], "loader"),
    "preprocessing.resize": ("shorter_side", [], "weights"),
    "preprocessing.crop": ("0.5", [], "weights"),
    "preprocessing.interpolation": ("bicubic", [], "weights"),
    "preprocessing.mean": ("[0.1, 0.2, 0.3]", [], "weights"),
    "preprocessing.std": ("[0.1, 0.2, 0.3]", [], "weights"),
    "augmentation.crop": ("inception", [], "weights"),
    "augmentation.area": ("[0.5, 0.6]", ["augmentation.crop=inception"], "weights"),
    "augmentation.aspect": ("[0.9, 1.1]", ["augmentation.crop=inception"], "weights"),
    "augmentation.pad": ("3", ["augmentation.crop=pad"], "weights"),
    "augmentation.enlarge": ("2", ["augmentation.crop=random"], "weights"),
    "augmentation.flip": ("true", [], "weights"),
    "augmentation.randaugment_layers": ("2", ["augmentation.randaugment_magnitude=10"], "weights"),
    "augmentation.randaugment_magnitude": ("10", ["augmentation.randaugment_layers=2"], "weights"),
    "augmentation.mixup": ("0.5", [], "weights"),
    "augmentation.cutmix": ("0.5", [], "weights"),
    "augmentation.erase": ("1", [], "weights"),
    "augmentation.where": ("device", ["augmentation.flip=true"], "loader"),
    "objective.loss": ("sigmoid", [], "weights"),
    "objective.label_smoothing": ("0.1", [], "weights"),
    "objective.head_bias": ("-3", [], "weights"),
    "optimizer.kind": ("sgd", [], "weights"),
    "optimizer.learning_rate": ("0.01", [], "weights"),
    "optimizer.weight_decay": ("0.5", [], "weights"),
    "optimizer.decay_kernels_only": ("true", ["optimizer.weight_decay=0.5"], "weights"),
    "optimizer.beta1": ("0.5", [], "weights"),
    "optimizer.beta2": ("0.5", [], "weights"),
    "optimizer.clip_norm": ("0.01", [], "weights"),
    "schedule.decay": ("constant", [], "weights"),
    "schedule.warmup_steps": ("3", [], "weights"),
    "schedule.end_learning_rate": ("0.01", [], "weights"),
    "schedule.milestones": ("[0.2]", ["schedule.decay=staircase"], "weights"),
    "schedule.factor": ("0.5", ["schedule.decay=staircase"], "weights"),
    "validation.share": ("0.25", [], "metrics"),
    "early_stopping.patience": ("1", ["validation.share=0.25", "evaluate_every=1"], "metrics"),
    "checkpoint.keep": ("1", ["checkpoint_every=1"], "checkpoints"),
    "scale.accumulation": ("2", [], "microbatches"),
    "scale.thread_replicas": ("2", [], "replica"),
    "scale.parallel": ("ddp", [], "recipe"),  # what several processes do: tests/faults/test_ranks.py
    "scale.compile": ("step", [], "compiled"),
    "scale.recompute": ("true", [], "recomputed"),
    "scale.precision": ("bfloat16", [], "weights"),
}


def _flat(values: dict, prefix: str = "") -> list[str]:
    keys = []
    for name, value in values.items():
        path = f"{prefix}{name}"
        keys += _flat(value, f"{path}.") if isinstance(value, dict) and path != "model.options" else [path]
    return keys


def test_every_key_of_the_schema_is_here():
    assert set(_flat(BASE.model_dump())) == set(KEYS)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, str]:
    """Image folders, one of them with a broken image, shards, weights and a list of duplicates."""
    root = tmp_path_factory.mktemp("data")
    for name, seed in (("images", 0), ("other", 1), ("broken", 0)):
        rng = np.random.default_rng(seed)
        for label in ("day", "night"):
            (root / name / label).mkdir(parents=True)
            for number in range(14):
                pixels = rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{number}.png")
    (root / "broken" / "day" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    source = open_source(str(root / "images"), "train")
    for split in ("train", "test"):
        pack(open_source(str(root / "images"), split), root / "shards", split, shard_samples=2)
    write_clean_list(root / "list.json", source, [0, 3], {})
    weights = vitlab.create_model("ViT-Ti/4", image_size=8, num_classes=2, **{**TINY, "hidden": 16})
    vitlab.save_model(weights, root / "weights")
    return {
        "IMAGES": str(root / "images"), "OTHER": str(root / "other"), "BROKEN": str(root / "broken"),
        "SHARDS": str(root / "shards"), "LIST": str(root / "list.json"), "WEIGHTS": str(root / "weights"),
    }  # fmt: skip


def _assignment(key: str, value: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        value = value.replace(name, path)
    return f"{key}={value}"


def _others(also: list[str], places: dict[str, str]) -> list[str]:
    return [_assignment(*assignment.split("=", 1), places) for assignment in also]


class _Spy:
    """What a run was carried out with, where its result does not show it."""

    def __init__(self, monkeypatch) -> None:
        self.seen: dict[str, object] = {}
        batches, made, parallelize = loader.training_batches, trainer.MicrobatchMaker, parallel.parallelize
        checkpoint = parallel.checkpoint

        def training_batches(source, preprocessing, augmentation, **options):
            self.seen["loader"] = (options["workers"], augmentation.where)
            return batches(source, preprocessing, augmentation, **options)

        def maker(*arguments):
            self.seen["microbatches"] = arguments[-1]
            return made(*arguments)

        def parallelized(*arguments):
            replica = parallelize(*arguments)
            self.seen["replica"] = 1 if replica.threads is None else len(replica.threads.models)
            return replica

        def recomputed(*arguments, **options):
            self.seen["recomputed"] = True
            return checkpoint(*arguments, **options)

        monkeypatch.setattr(loader, "training_batches", training_batches)
        monkeypatch.setattr(trainer, "MicrobatchMaker", maker)
        monkeypatch.setattr(parallel, "parallelize", parallelized)
        monkeypatch.setattr(parallel, "checkpoint", recomputed)
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module: self.seen.update(compiled=True))


def _trace(kind: str, out: Path, seen: dict[str, object]) -> object:
    """What a run leaves of a kind of key: in its directory, or in how it was carried out."""
    if kind == "weights":
        return (out / "model" / "model.safetensors").read_bytes()
    if kind == "metrics":
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [(line["step"], sorted(line)) for line in lines]
    if kind == "checkpoints":
        return sorted(path.name for path in (out / "checkpoints").iterdir())
    if kind == "tensorboard":
        return (out / "tensorboard").exists()
    if kind == "recipe":
        return (out / "recipe.toml").read_text()
    return seen.get(kind)


@pytest.fixture(scope="module")
def without() -> dict[tuple[str, ...], tuple[Path, dict[str, object]]]:
    """Runs without a key, by what else is set: each is made once."""
    return {}


@pytest.mark.parametrize("key", KEYS)
def test_run_honours_every_key(tmp_path, monkeypatch, places, without, key):
    value, also, kind = KEYS[key]
    spy = _Spy(monkeypatch)
    base = with_changes(BASE, [f"data.source={places['IMAGES']}", *_others(also, places)])
    changed = with_changes(base, [_assignment(key, value, places)])
    if kind == "accepted":
        with pytest.raises(UserError, match=r"bad\.png"):
            vitlab.run(base, tmp_path / "without", title=None)
        vitlab.run(changed, tmp_path / "with", title=None)
        return
    if tuple(also) not in without:
        vitlab.run(base, tmp_path / "without", title=None)
        without[tuple(also)] = tmp_path / "without", dict(spy.seen)
    spy.seen.clear()
    vitlab.run(changed, tmp_path / "with", title=None)
    assert from_toml((tmp_path / "with" / "recipe.toml").read_text(), "with") == changed
    assert _trace(kind, *without[tuple(also)]) != _trace(kind, tmp_path / "with", spy.seen), f"{key} changes nothing"


class _Reached(Exception):
    """The recipe that a verb was about to run."""


@pytest.fixture
def reached(monkeypatch):
    """Calls a verb; gives the recipe with which it reached `run`, or the one line with which it refused."""

    def run(recipe, out, **options):
        raise _Reached(vitlab.runner.resolved(recipe, options.get("data"), options.get("model")))

    for module in (training, study, vtab, estimator):
        monkeypatch.setattr(module, "run", run)

    def call(capsys, verb) -> Recipe | str:
        try:
            assert verb() == 2
        except _Reached as found:
            return found.args[0]
        except UserError as error:
            return str(error)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vitlab: ")]
        assert len(lines) == 1
        return lines[0]

    return call


# verb -> keys that it refuses, with words of the line; all others reach `run`
REFUSED = {
    "pretrain": {},
    "finetune": {"model.name": "no effect beside init_from", "init_from": "set twice"},
    "study": {
        "seed": "--seeds", "optimizer.learning_rate": "--rates", "validation.share": "chooses it for each run",
        "early_stopping.patience": "chooses it for each run",
    },
    "vtab": {
        "init_from": "the weights are MODEL", "optimizer.learning_rate": "--learning-rates", "data.source": "--data",
        "epochs": "--steps", "model.name": "no effect beside init_from",
    },
    "estimator": {"log": "keeps no run"},
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("verb", REFUSED)
def test_every_verb_hands_every_key_on_or_refuses_it(
    tmp_path, capsys, monkeypatch, reached, places, vtab_data, verb, key
):
    value, also, _ = KEYS[key]
    if verb == "vtab":  # it has images of its own
        fewer_training_images(monkeypatch)
        also = [assignment for assignment in also if not assignment.startswith("data.source")]
        also = [*also, "optimizer.kind=adamw"] if key.startswith("optimizer.beta") else also
    assignments = [*_others(also, places), _assignment(key, value, places)]
    expected = with_changes(BASE, assignments)
    words = [f"--set={assignment}" for assignment in assignments]
    files.write_text(tmp_path / "base.toml", vitlab.recipes.schema.to_toml(BASE))
    base, out = str(tmp_path / "base.toml"), ["--out", str(tmp_path / "out"), "--device", "cpu"]
    data = [] if key == "data.source" or any("data.source" in word for word in also) else ["--data", places["IMAGES"]]

    def call():
        if verb == "pretrain":
            return main(["pretrain", base, *data, *out, *words])
        if verb == "finetune":
            return main(["finetune", places["WEIGHTS"], "--recipe", base, *data, *out, *words])
        if verb == "study":
            return main(["study", base, *data, "--rates", "0.1,0.2", "--seeds", "0", *out, *words])
        if verb == "vtab":
            return main(["vtab", places["WEIGHTS"], "--data", vtab_data, "--tasks", "svhn", *out, *words])
        return vitlab.ViTClassifier(recipe=expected).fit(np.zeros((8, 8, 8)), [0, 1] * 4)

    found = reached(capsys, call)
    if key in REFUSED[verb]:
        assert isinstance(found, str)
        assert REFUSED[verb][key] in found
    else:
        assert isinstance(found, Recipe), found
        assert value_at(found, key) == value_at(expected, key)


@pytest.fixture(scope="module")
def vtab_data(tmp_path_factory) -> str:
    root = tmp_path_factory.mktemp("vtab")
    write_all(root)
    return str(root)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("augmentation.pad", "3"), ("augmentation.area", "[0.5, 0.6]"), ("augmentation.enlarge", "2"),
        ("augmentation.randaugment_magnitude", "5"), ("schedule.factor", "0.5"), ("schedule.milestones", "[0.5]"),
    ],
)  # fmt: skip
def test_a_key_without_effect_beside_others_is_refused(capsys, tmp_path, key, value):
    words = ["pretrain", "scratch", "--data", "digits", "--set=augmentation.crop=none", f"--set={key}={value}"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert f"{key} has no effect beside" in capsys.readouterr().err
