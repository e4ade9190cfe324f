"""The reference implementations' outputs, through the public importer, and their files back byte for byte."""

import numpy as np
import pytest
import torch

from vitlab.weights import load_model, save_model
from weights.helpers import (
    TOLERANCE,
    fill,
    golden_arrays,
    golden_cases,
    golden_images,
    largest_difference,
    save_npz,
)

CASES = golden_cases()
LARGE = {"ViT-B_32", "R50+ViT-B_16"}
MARKED = [pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in CASES]


def test_all_cases_are_here():
    assert len(CASES) == 9


@pytest.mark.parametrize("name", MARKED)
def test_logits_and_the_way_back(name, tmp_path):
    case = CASES[name]
    arrays = golden_arrays(case)
    source = save_npz(tmp_path / "a file with a name that says nothing", arrays)
    model = load_model(source, image_size=(case["height"], case["width"]))

    with torch.no_grad():
        logits_BK = model(golden_images(case))
    assert largest_difference(logits_BK, case["logits"]) <= TOLERANCE
    assert sum(parameter.numel() for parameter in model.parameters()) == case["params"]

    save_model(model, tmp_path / "out.npz", format="flax")
    with np.load(tmp_path / "out.npz") as back:
        assert set(back.files) == set(arrays)
        for key, array in arrays.items():
            assert back[key].dtype == array.dtype
            assert back[key].shape == array.shape
            assert back[key].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", [name for name in CASES if "tiny" in name or "small" in name])
def test_the_config_is_told_by_the_arrays(name, tmp_path):
    case = CASES[name]
    model = load_model(save_npz(tmp_path / "x", golden_arrays(case)), image_size=(case["height"], case["width"]))
    config = model.config
    assert (config.hidden, config.layers, config.mlp, config.heads) == tuple(
        case[key] for key in ("hidden", "layers", "mlp", "heads")
    )
    assert (config.patch, config.num_classes, config.head) == (case["patch"], case["classes"], case["classifier"])
    assert (config.representation, config.gelu) == (case["representation_size"], case["gelu"])
    if case["resnet"]:
        assert list(config.resnet.blocks) == case["resnet"]["num_layers"]
        assert config.resnet.width == case["resnet"]["width_factor"]


def test_a_grid_that_is_not_square_has_to_be_named(tmp_path):
    case = CASES["ViT-tiny-test_8-gap"]
    source = save_npz(tmp_path / "x.npz", golden_arrays(case))
    with pytest.raises(ValueError, match=r"24 patch positions are not a square grid.*image_size=\(height, width\)"):
        load_model(source)


def test_fill_is_the_rule_the_cases_were_made_with():
    # A drawn value, so that a changed NumPy cannot make every case wrong at once without a word.
    assert fill.tensor("cls", [1, 1, 32]).std() == pytest.approx(0.2, rel=0.5)
    assert fill.images(1, 2, 2).dtype == np.uint8
