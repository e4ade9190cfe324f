"""Every kind of model and every variant trains: one step moves every parameter, and the names of the zoo build."""

import pytest
import torch
import torch.nn.functional as F

from vitlab.errors import UserError
from vitlab.models import ResNetConfig, ResNetStem, ViTConfig, create_model
from vitlab.models.build import build
from vitlab.recipes import cost, zoo

TINY = ViTConfig(8, 16, 2, 24, 4, image_size=(16, 24), num_classes=5)
VARIANTS = [
    {"position": position, "position_at": place, "head": head}
    for position in ("learned", "learned2d", "sincos2d", "relative", "none")
    for place in ("input", "every_layer", "every_layer_shared")
    for head in ("token", "gap")
    if place == "input" or position not in ("relative", "none")
]
CONFIGS = {
    **{"-".join(variant.values()): zoo.configure(TINY, variant) for variant in VARIANTS},
    "representation": zoo.configure(TINY, {"representation": 12, "dropout": 0.1, "drop_path": 0.1}),
    "erf": zoo.configure(TINY, {"gelu": "erf"}),
    "hybrid": ViTConfig(1, 16, 2, 24, 4, image_size=32, num_classes=5, resnet=ResNetStem((2, 1), 0.5)),
    "root hybrid": ViTConfig(2, 16, 2, 24, 4, image_size=32, num_classes=5, resnet=ResNetStem((), 0.5)),
    "axial": ViTConfig(8, 16, 2, 24, 4, image_size=32, num_classes=5, head="gap", position="learned2d", axial=True),
    "bit": ResNetConfig((2, 1), 0.5, image_size=32, num_classes=5),
    "axial resnet": ResNetConfig((2, 1), 0.5, image_size=32, num_classes=5, axial_heads=4),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_one_step_moves_every_parameter(name):
    model = build(CONFIGS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # a zero head, or the zero scale of a hybrid's unit, would block gradients
                parameter.normal_(std=0.1)
    before = {key: parameter.clone() for key, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    images, labels = torch.randn(4, 3, *CONFIGS[name].image_hw), torch.tensor([0, 1, 2, 4])
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    assert loss.isfinite()
    for key, parameter in model.named_parameters():
        moved = parameter != before[key]
        # Of a table that is added to tokens, every row is used.
        assert moved.flatten(0, -2).any(1).all() if "pos_embed" in key else moved.any(), key


@pytest.mark.parametrize("name", ["axial resnet", "hybrid", "relative-input-token"])
def test_training_lowers_the_loss(name):
    model = build(CONFIGS[name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, labels = torch.randn(8, 3, *CONFIGS[name].image_hw), torch.arange(8) % 5
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.log(torch.tensor(5.0)).item()), "a zero head knows nothing"
    assert losses[-1] < 0.8 * losses[0]


def test_create_model_takes_names_configurations_and_options():
    with torch.device("meta"):
        model = create_model("ViT-B/16", num_classes=10)
        assert sum(parameter.numel() for parameter in model.parameters()) == 85_806_346
        assert create_model("B/16").config == zoo.get("ViT-B/16")
    model = create_model(TINY, dropout=0.1, num_classes=7)
    assert (model.config.dropout, model.config.num_classes, model.config.image_size) == (0.1, 7, (16, 24))
    assert create_model(TINY).config == TINY
    assert create_model(TINY, image_size=32).preprocessing.size == (32, 32)
    assert create_model(TINY).classes is None
    assert cost.parameters(TINY) == sum(parameter.numel() for parameter in create_model(TINY).parameters())


def test_create_model_refuses_unknown_options():
    with pytest.raises(UserError, match="did you mean dropout"):
        create_model(TINY, dropuot=0.1)
