"""torchvision's VisionTransformer as the oracle, and its plain PyTorch twin where the names are told by hand."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitlab.errors import UserError
from vitlab.weights import load_model, save_model
from weights.helpers import TOLERANCE, images_for, largest_difference, randomise, same_arrays, tiny

SIZES = [
    pytest.param((64, 8, 2, 2, 128, 96), None, id="small"),
    pytest.param((64, 8, 2, 2, 128, 96), 24, id="representation"),
    pytest.param((224, 16, 12, 12, 768, 3072), None, id="vit_b_16", marks=pytest.mark.long),
]


@pytest.mark.parametrize(("sizes", "representation"), SIZES)
def test_both_ways(sizes, representation, torchvision_vit, tmp_path):
    theirs = randomise(torchvision_vit.VisionTransformer(*sizes, num_classes=7, representation_size=representation))
    save_file({name: array.clone() for name, array in theirs.state_dict().items()}, tmp_path / "theirs")
    ours = load_model(tmp_path / "theirs")
    images = images_for(ours)
    with torch.no_grad():
        wanted = theirs(images)
        assert wanted.abs().max() > 0.1
        assert largest_difference(ours(images), wanted) <= TOLERANCE
    assert ours.config.gelu == "erf"
    assert ours.config.representation == representation
    assert ours.preprocessing.mean == (0.485, 0.456, 0.406)

    save_model(ours, tmp_path / "ours", format="torchvision")
    again = torchvision_vit.VisionTransformer(*sizes, num_classes=7, representation_size=representation).eval()
    again.load_state_dict(load_file(tmp_path / "ours"))
    with torch.no_grad():
        assert torch.equal(again(images), wanted)
    assert same_arrays(ours, load_model(tmp_path / "ours"))


def test_older_names_and_wrappers(torchvision_vit, tmp_path):
    theirs = randomise(torchvision_vit.VisionTransformer(32, 8, 2, 2, 128, 96, num_classes=7))
    arrays = {name: array.clone() for name, array in theirs.state_dict().items()}
    older = {
        name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): array
        for name, array in arrays.items()
    }
    assert older.keys() != arrays.keys()
    save_file(arrays, tmp_path / "new")
    save_file(older, tmp_path / "old")
    save_file({f"module.{name}": array for name, array in arrays.items()}, tmp_path / "wrapped")
    assert same_arrays(load_model(tmp_path / "new"), load_model(tmp_path / "old"))
    assert same_arrays(load_model(tmp_path / "new"), load_model(tmp_path / "wrapped"))


class Twin(torch.nn.Module):
    """One layer of torchvision's ViT, written with PyTorch's own MultiheadAttention."""

    def __init__(self):
        super().__init__()
        self.ln_1 = torch.nn.LayerNorm(128, eps=1e-6)
        self.self_attention = torch.nn.MultiheadAttention(128, 2, batch_first=True)
        self.ln_2 = torch.nn.LayerNorm(128, eps=1e-6)
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(128, 96), torch.nn.GELU(), torch.nn.Identity(), torch.nn.Linear(96, 128)
        )

    def forward(self, tokens_BND):
        normed_BND = self.ln_1(tokens_BND)
        tokens_BND = tokens_BND + self.self_attention(normed_BND, normed_BND, normed_BND, need_weights=False)[0]
        return tokens_BND + self.mlp(self.ln_2(tokens_BND))


def test_the_layer_is_pytorchs_own_attention(tmp_path):
    twin = randomise(Twin())
    model = tiny(layers=1, mlp=96, gelu="erf")
    save_model(model, tmp_path / "ours", format="torchvision")
    prefix = "encoder.layers.encoder_layer_0."
    arrays = load_file(tmp_path / "ours")
    arrays |= {prefix + name: array.clone() for name, array in twin.state_dict().items()}
    save_file(arrays, tmp_path / "twin")
    tokens_BND = torch.randn(2, 17, 128, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        found = load_model(tmp_path / "twin").blocks[0](tokens_BND)
        assert largest_difference(found, twin(tokens_BND)) <= TOLERANCE


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "gelu='tanh'"),
        ({"gelu": "erf", "head": "gap"}, "head='gap'"),
        ({"gelu": "erf", "num_classes": 0}, "a model without a head"),
        ({"gelu": "erf", "image_size": (32, 48)}, r"patches 8 of images \(32, 48\)"),
        ({"gelu": "erf", "position": "relative"}, "position='relative'"),
    ],
    ids=str,
)
def test_what_torchvision_has_no_place_for_is_refused(options, what, tmp_path):
    with pytest.raises(UserError, match=f"torchvision cannot hold {what}: save it as vitlab or onnx"):
        save_model(tiny(**options), tmp_path / "x", format="torchvision")


def test_an_epsilon_that_cannot_travel_is_pointed_out(tmp_path, caplog):
    save_model(tiny(gelu="erf", norm_eps=1e-12), tmp_path / "x", format="torchvision")
    assert "torchvision readers use norm_eps=1e-06, this model has 1e-12" in caplog.text
