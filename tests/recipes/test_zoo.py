"""The zoo: every spelling finds its model, and every mistake is one line that says how to mend it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import UserError
from vitlab.recipes import zoo
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig

TABLE = {  # layers, hidden, mlp, heads (paper: Table 1; AugReg; scaling paper)
    "Ti": (12, 192, 768, 3),
    "S": (12, 384, 1536, 6),
    "B": (12, 768, 3072, 12),
    "L": (24, 1024, 4096, 16),
    "H": (32, 1280, 5120, 16),
    "g": (40, 1408, 6144, 16),
    "G": (48, 1664, 8192, 16),
}


@pytest.mark.parametrize("size", TABLE)
@pytest.mark.parametrize("patch", [4, 8, 14, 16, 32])
def test_plain_names_are_size_and_patch(size, patch):
    layers, hidden, mlp, heads = TABLE[size]
    assert zoo.get(f"ViT-{size}/{patch}") == ViTConfig(patch, hidden, layers, mlp, heads)


@pytest.mark.parametrize(
    ("name", "size", "patch", "stem"),
    [
        ("R+ViT-Ti/16", "Ti", 8, ()),
        ("R26+ViT-S/32", "S", 1, (2, 2, 2, 2)),
        ("R26+ViT-B/32", "B", 1, (2, 2, 2, 2)),
        ("R50+ViT-B/16", "B", 1, (3, 4, 9)),
        ("R50+ViT-B/32", "B", 1, (3, 4, 6, 3)),
        ("R50+ViT-L/16", "L", 1, (3, 4, 9)),
        ("R50+ViT-L/32", "L", 1, (3, 4, 6, 3)),
    ],
)
def test_hybrids(name, size, patch, stem):
    layers, hidden, mlp, heads = TABLE[size]
    config = zoo.get(name)
    assert config == ViTConfig(patch, hidden, layers, mlp, heads, resnet=ResNetStem(stem))
    # The number in the name is the total downsampling, but for R+ViT-Ti/16, which the original gives 32.
    assert config.token_hw == ((32, 32) if name.endswith("32") or size == "Ti" else (16, 16))


def test_resnets_and_axial_models():
    assert zoo.get("BiT-R152x4") == ResNetConfig((3, 8, 36, 3), 4.0)
    assert zoo.get("AxialResNet50") == ResNetConfig((3, 4, 6, 3), axial_heads=8)
    axial = zoo.get("Axial-ViT-B/32")
    assert isinstance(axial, ViTConfig)
    assert (axial.axial, axial.head, axial.position, axial.patch) == (True, "gap", "learned2d", 32)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ViT-B_16", "ViT-B/16"),
        ("B/16", "ViT-B/16"),
        ("vit-b/16", "ViT-B/16"),
        ("vit_b_16", "ViT-B/16"),
        (" ViT-B/16 ", "ViT-B/16"),
        ("ViT-Base/16", "ViT-B/16"),
        ("vit_tiny_patch16_224", "ViT-Ti/16"),
        ("vit-huge-patch14-224", "ViT-H/14"),
        ("g/14", "ViT-g/14"),
        ("G/14", "ViT-G/14"),
        ("vit_giant_patch14", "ViT-g/14"),
        ("vit_gigantic_patch14", "ViT-G/14"),
        ("R50+ViT-B_16", "R50+ViT-B/16"),
        ("r50+b/16", "R50+ViT-B/16"),
        ("R50x1+ViT-L/16", "R50+ViT-L/16"),
        ("R+Ti/16", "R+ViT-Ti/16"),
        ("R50x1", "BiT-R50x1"),
        ("BiT-M-R101x3", "BiT-R101x3"),
        ("bit_resnet152x2", "BiT-R152x2"),
        ("axial-b/16", "Axial-ViT-B/16"),
        ("Axial-ResNet50", "AxialResNet50"),
    ],
)
def test_every_usual_spelling(spelling, name):
    assert zoo.get(spelling) == zoo.get(name)


def test_image_size_in_a_name():
    assert zoo.get("vit_base_patch16_384") == dataclasses.replace(zoo.get("B/16"), image_size=384)
    assert zoo.get("R50+ViT-B_16-384") == dataclasses.replace(zoo.get("R50+B/16"), image_size=384)


def test_names_are_complete_distinct_and_in_the_slash_form():
    names = zoo.names()
    assert len(names) == len(set(names)) == len({zoo.get(name) for name in names})
    assert {f"ViT-{size}/{patch}" for size in TABLE for patch in (8, 14, 16, 32)} < set(names)
    bit = {"R50x1", "R50x2", "R50x3", "R101x1", "R101x3", "R152x1", "R152x2", "R152x4", "R200x3"}
    assert {f"BiT-{name}" for name in bit} < set(names)
    assert {"Axial-ViT-B/16", "Axial-ViT-B/32", "AxialResNet50", "R26+ViT-B/32"} < set(names)
    assert not any("_" in name for name in names)


def test_options_override_all_at_once():
    config = zoo.configure("ViT-B/10", {"image_size": (40, 320), "dropout": "0.1", "num_classes": "10"})
    assert isinstance(config, ViTConfig)
    assert (config.grid, config.dropout, config.num_classes) == ((4, 32), 0.1, 10)
    assert zoo.configure(config, {"patch": 20, "resnet": None}).grid == (2, 16)
    assert zoo.configure("B/16", {"resnet": {"blocks": [3, 4, 9]}, "patch": 1}) == zoo.get("R50+B/16")
    assert zoo.configure("R50x1", {"num_classes": 0}) == ResNetConfig((3, 4, 6, 3), num_classes=0)


def test_sizes_of_tokens():
    config = ViTConfig((8, 16), 32, 1, 64, 4, image_size=(32, 64))
    assert (config.grid, config.tokens, config.prefix_tokens, config.feature_width) == ((4, 4), 17, 1, 32)
    assert ViTConfig((8, 8), 32, 1, 64, 4, image_size=(64, 64)) == ViTConfig(8, 32, 1, 64, 4, image_size=64)
    hybrid = zoo.configure("R50+B/16", {"image_size": (64, 96), "head": "gap", "representation": 7})
    assert isinstance(hybrid, ViTConfig)
    assert (hybrid.grid, hybrid.tokens, hybrid.patch_channels, hybrid.feature_width) == ((4, 6), 24, 1024, 7)


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("ViT-B/17", {}, ["224", "17", "221", "238"]),
        ("Vit-Q/16", {}, ["Vit-Q/16", "did you mean", "ViT-L/16", "vitlab models"]),
        ("R50x9", {}, ["R50x9", "BiT-R50x3"]),
        ("R26+L/32", {}, ["R26+L/32", "R26+ViT-B/32"]),
        ("", {}, ["unknown model"]),
        ("B/16", {"hiden": 3}, ["hiden", "did you mean hidden"]),
        ("R50x1", {"heads": 3}, ["heads", "axial_heads"]),
        ("B/16", {"heads": 11}, ["768", "11", "759", "770"]),
        ("B/16", {"image_size": (224, 230)}, ["width 230", "16", "224", "240"]),
        ("B/16", {"image_size": 8}, ["height 8", "16", "16 and 32"]),
        ("R50+B/16", {"image_size": 200}, ["200", "16", "192", "208"]),
        ("B/16", {"head": "gop"}, ["head", "'token' or 'gap'", "gop"]),
        ("B/16", {"hidden": "abc"}, ["hidden", "integer", "abc"]),
        ("B/16", {"patch": 0}, ["patch", "greater than 0"]),
        ("B/16", {"dropout": 1.0}, ["dropout", "less than 1"]),
        ("B/16", {"dropout": float("nan")}, ["dropout"]),
        ("B/16", {"norm_eps": float("inf")}, ["norm_eps", "finite"]),
        ("R50x1", {"width": float("inf")}, ["width", "finite"]),
        ("B/16", {"resnet": {"bloks": (1,)}}, ["resnet.bloks"]),
        ("B/16", {"resnet": {"width": 0.3}}, ["0.3", "19", "0.5"]),
        ("B/16", {"position": "relative", "position_at": "every_layer"}, ["relative", "every_layer", "learned"]),
        ("B/16", {"position": "learned2d", "hidden": 33, "heads": 3}, ["learned2d", "33", "32 and 34"]),
        ("B/16", {"axial": True}, ["gap"]),
        ("Axial-ViT-B/16", {"position": "relative"}, ["axial", "learned2d"]),
        ("R50x1", {"blocks": ()}, ["blocks", "(3, 4, 6, 3)"]),
        ("AxialResNet50", {"axial_heads": 7}, ["64", "7", "8"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_that_says_how_to_mend_them(model, options, words):
    with pytest.raises(UserError) as caught:
        zoo.configure(model, options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_values_made_directly_report_in_one_line_too():
    with pytest.raises(UserError, match=r"hed.*did you mean head"):
        ViTConfig(16, 768, 12, 3072, 12, hed="gap")
    with pytest.raises(UserError, match="hidden is missing"):
        ViTConfig(16)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ViTConfig(16, 768, 12, 3072, 12).patch = 8  # type: ignore[misc]


@given(st.text(max_size=40))
def test_any_text_is_a_model_or_a_user_error(name):
    try:
        zoo.get(name)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@given(st.integers(1, 500), st.integers(1, 64))
def test_the_suggested_image_sizes_are_valid_and_nearest(pixels, patch):
    try:
        assert ViTConfig(patch, 32, 1, 64, 4, image_size=pixels).grid[0] * patch == pixels
    except UserError as error:
        below, above = (int(word) for word in str(error).rsplit("are ", 1)[1].split(" and "))
        assert below % patch == above % patch == 0
        assert above - below == patch
        assert below < pixels < above or pixels < patch == below
