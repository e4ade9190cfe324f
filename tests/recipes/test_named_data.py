"""What recipes know of named data sets is what the catalog says, and what their models' heads are counted with."""

import pytest

from vitlab.datasets import named
from vitlab.datasets.catalog import describe_names, open_source
from vitlab.recipes import cost, library, zoo
from vitlab.recipes.entries import NAMED_DATA, model_of, named_data
from vitlab.report.published import TABLE_6

CLASSES = {name: classes for name, _, classes, _ in describe_names()}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_those_of_the_catalog(name):
    known = named_data(name)
    if known is None:
        assert named.SETS[name].train is None
    else:
        assert known.classes == CLASSES[name]


def test_nothing_is_known_that_the_catalog_does_not_have():
    assert set(NAMED_DATA) <= set(CLASSES)
    assert [named_data(source) for source in ("", "photos", "runs/cifar10", "hf://uoft-cs/cifar10")] == [None] * 4
    assert named_data("cifar10=/data/cifar") == named_data("cifar10")


@pytest.mark.parametrize("name", ["fashion-mnist", "digits"])
def test_bundled_images_are_as_many_as_there_are(name):
    assert NAMED_DATA[name].images == len(open_source(name, "train"))


@pytest.mark.parametrize("name", ["uc_merced", "col_hist"])
def test_images_are_as_many_as_the_catalog_cuts(name):
    assert NAMED_DATA[name].images == named.SETS[name].train.first


@pytest.mark.parametrize("entry", library.entries(), ids=lambda entry: entry.name)
def test_entries_agree_on_how_many_images_there_are(entry):
    known = named_data(entry.recipe.data.source)
    if known is not None and entry.images is not None:
        assert entry.images == known.images


def test_a_recipes_model_has_a_head_for_its_data():
    config = model_of(library.load_recipe("fashion-mnist"))
    assert (config.num_classes, cost.parameters(config)) == (10, 145_290)
    assert library.entry("fashion-mnist").exaflops == pytest.approx(4.549e-06, rel=1e-3)
    assert model_of(library.load_recipe("table3/vit-b16-i21k-90ep")).num_classes == 21_843
    assert model_of(library.load_recipe("vtab/pets")).num_classes == 37
    assert model_of(library.load_recipe("finetune"), classes=3).num_classes == 3
    assert model_of(library.load_recipe("fashion-mnist"), classes=3).num_classes == 10


def test_a_recipe_without_named_data_keeps_the_models_own_head():
    row = next(row for row in TABLE_6 if row.model == "ViT-B/16")
    recipe = library.load_recipe("table3/vit-b16-jft-7ep")
    assert model_of(recipe).num_classes == zoo.get(row.model).num_classes == 1000
    assert model_of(recipe, name="ViT-L/16", image_size=384).image_hw == (384, 384)


def test_images_that_are_left_out_cost_nothing():
    entry = library.entry("plain/vit-s16-90ep")
    seen = 90 * 0.99 * 1_281_167
    assert entry.exaflops == pytest.approx(3 * cost.flops(model_of(entry.recipe)) * seen / 1e18, rel=1e-4)
