"""`vitlab.run`: from Python what the command line does, and honest about what it is given."""

import json

import pytest
import torch

import vitlab
from vitlab.data.sources import select
from vitlab.datasets.catalog import open_source
from vitlab.errors import UserError
from vitlab.models.build import replace_head
from vitlab.recipes.schema import Recipe, with_changes
from vitlab.runner import ACCURACY, Splits, resolved

TINY = ["model.options={hidden=16, layers=1, heads=2, mlp=16}", "batch_size=16", "checkpoint_every=2"]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return with_changes(vitlab.load_recipe("demo-upstream"), ["steps=4", "data.source=digits", *TINY])


@pytest.fixture(scope="module")
def pretrained(recipe, tmp_path_factory) -> vitlab.Run:
    return vitlab.run(recipe, tmp_path_factory.mktemp("runs") / "upstream", device="cpu", title=None)


def _equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_run_gives_model_recipe_metrics_results_and_path(pretrained, recipe):
    assert pretrained.recipe == recipe
    assert not pretrained.model.training
    assert _equal(vitlab.load_model(pretrained.path), pretrained.model)
    assert [line["step"] for line in pretrained.metrics if "loss" in line] == [4]
    numbers = pretrained.results[ACCURACY].numbers
    assert numbers == json.loads((pretrained.path / "results" / "accuracy.json").read_text())["numbers"]
    assert numbers["top1"] == numbers["correct"] / numbers["images"] == pretrained.metrics[-1]["test_top1"]


def test_fine_tuning_starts_from_a_run(pretrained, tmp_path):
    quick = with_changes(vitlab.load_recipe("demo-downstream"), ["steps=1", "batch_size=4"])
    tuned = vitlab.run(quick, tmp_path / "tuned", data="fashion-mnist", model=pretrained.path, device="cpu", title=None)
    assert tuned.recipe.init_from == str(pretrained.path)
    assert tuned.recipe.data.source == "fashion-mnist"
    assert len(tuned.model.classes) == 10


def test_the_same_arguments_resume_and_give_the_same_model(pretrained, recipe, tmp_path):
    first = vitlab.run(recipe, tmp_path / "run", device="cpu", title=None)
    again = vitlab.run(recipe, tmp_path / "run", device="cpu", resume=True, title=None)
    assert _equal(first.model, pretrained.model)
    assert _equal(again.model, pretrained.model)
    with pytest.raises(UserError, match="already holds a run"):
        vitlab.run(recipe, tmp_path / "run", device="cpu", title=None)


def test_a_model_is_trained_as_it_is_and_only_that_one_resumes(recipe, tmp_path):
    def model(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return vitlab.create_model("ViT-Ti/7", num_classes=10, image_size=28, hidden=16, layers=1, heads=2, mlp=16)

    still = with_changes(recipe, ["optimizer.learning_rate=1e-9", "optimizer.weight_decay=0", "averaging=0"])
    given = model(0)
    start = given.blocks[0].mlp.fc1.weight.detach().clone()
    done = vitlab.run(still, tmp_path / "run", model=given, device="cpu", title=None)
    torch.testing.assert_close(done.model.blocks[0].mlp.fc1.weight.detach(), start, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="started from another model"):
        vitlab.run(still, tmp_path / "run", model=model(1), device="cpu", resume=True, title=None)
    replace_head(given, 3)
    with pytest.raises(UserError, match="3 outputs and the data has 10 classes"):
        vitlab.run(still, tmp_path / "other", model=given, device="cpu", title=None)
    with pytest.raises(UserError, match="model.image_size=35 has no effect on a model"):
        vitlab.run(with_changes(still, ["model.image_size=35"]), tmp_path / "other", model=model(0), title=None)
    assert not (tmp_path / "other").exists()


def test_images_at_hand_are_trained_on_without_a_test(recipe, tmp_path):
    train = select("some", [(open_source("digits", "train"), range(40))])
    done = vitlab.run(recipe, tmp_path / "run", data=Splits(train), device="cpu", title=None)
    assert done.results == {}
    held_out = with_changes(recipe, ["validation.share=0.5", "evaluate_every=2"])
    measured = vitlab.run(held_out, tmp_path / "held-out", data=Splits(train), device="cpu", title=None)
    assert [line["step"] for line in measured.metrics if "validation_top1" in line] == [2, 4]
    with pytest.raises(UserError, match="there are no test images; set validation.share"):
        vitlab.run(with_changes(recipe, ["evaluate_every=2"]), tmp_path / "x", data=Splits(train), device="cpu")


def test_a_name_that_is_a_path_as_well_is_not_guessed(recipe, tmp_path, monkeypatch):
    assert resolved(recipe, model="ViT-S/14").model.name == "ViT-S/14"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-S" / "14").mkdir(parents=True)
    with pytest.raises(UserError, match=r"write \./ViT-S/14 for the path"):
        resolved(recipe, model="ViT-S/14")
    assert resolved(recipe, model="./ViT-S/14").init_from == "./ViT-S/14"
    started = recipe.model_copy(update={"init_from": "weights"})
    with pytest.raises(UserError, match="leave out one of the two"):
        resolved(started, model="ViT-Ti/16")


def test_without_images_nothing_is_begun(recipe, tmp_path):
    nothing = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": ""})})
    with pytest.raises(UserError, match="no images given"):
        vitlab.run(nothing, tmp_path / "run")
    assert not (tmp_path / "run").exists()
