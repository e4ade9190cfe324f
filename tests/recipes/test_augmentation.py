"""The augmentation's value: its ranges, its way through TOML and `--set`, and AugReg's names."""

import pytest

from vitlab.errors import UserError
from vitlab.recipes.augmentation import AUGREG, Augmentation, augreg
from vitlab.recipes.schema import Recipe, from_toml, to_toml, with_changes

ALL = Augmentation(
    crop="inception", area=(0.1, 0.9), aspect=(0.5, 2.0), pad=3, flip=False, randaugment_layers=3,
    randaugment_magnitude=12.5, mixup=0.3, cutmix=1.0, erase=0.25, where="device",
)  # fmt: skip


@pytest.mark.parametrize("augmentation", [Augmentation(), ALL, *(augreg(name) for name in AUGREG)])
def test_toml_reads_back_equal(augmentation):
    recipe = Recipe(steps=1, augmentation=augmentation)
    assert from_toml(to_toml(recipe), "here") == recipe


def test_everything_new_is_off_by_default():
    plain = Augmentation()
    assert (plain.randaugment_layers, plain.mixup, plain.cutmix, plain.erase) == (0, 0, 0, 0)
    assert plain.where == "workers"
    assert not plain.mixes
    assert Augmentation(mixup=0.1).mixes
    assert Augmentation(cutmix=0.1).mixes


def test_set_changes_each_of_them():
    assignments = {
        "crop": '"inception"', "area": "[0.1, 0.9]", "aspect": "[0.5, 2.0]", "pad": "3", "flip": "false",
        "randaugment_layers": "3", "randaugment_magnitude": "12.5", "mixup": "0.3", "cutmix": "1", "erase": "0.25",
        "where": "device",
    }  # fmt: skip
    changed = with_changes(Recipe(steps=1), [f"augmentation.{key}={value}" for key, value in assignments.items()])
    assert changed.augmentation == ALL


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("randaugment_layers", -1), ("randaugment_layers", 17), ("randaugment_magnitude", -0.1),
        ("randaugment_magnitude", 30.5), ("mixup", -0.1), ("cutmix", -1.5), ("erase", -0.1), ("erase", 1.1),
    ],
)  # fmt: skip
def test_what_is_out_of_range_is_refused_in_one_line(key, value):
    with pytest.raises(UserError, match=rf"^augmentation\.{key} is {value}: give .*$") as caught:
        Augmentation(**{key: value})
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=rf"augmentation\.{key} is {value}: give "):
        with_changes(Recipe(steps=1), [f"augmentation.{key}={value}"])


@pytest.mark.parametrize(
    ("key", "value"), [("mixup", float("nan")), ("erase", float("inf")), ("randaugment_layers", 1.5), ("where", "gpu")]
)
def test_what_is_no_such_value_is_refused(key, value):
    with pytest.raises(UserError, match=key):
        Augmentation(**{key: value})


def test_the_ends_of_the_ranges_are_allowed():
    Augmentation(randaugment_layers=16, randaugment_magnitude=30, erase=1.0)
    Augmentation(randaugment_layers=0, randaugment_magnitude=0, erase=0.0, mixup=0.0, cutmix=0.0)


def test_an_unknown_augreg_name_is_answered_with_near_ones():
    with pytest.raises(UserError, match=r"^unknown AugReg augmentation 'strong3': did you mean strong2 or strong1\?"):
        augreg("strong3")
