"""The arithmetic of costs agrees with the models themselves and with the paper's tables."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vitlab.errors import UserError
from vitlab.models.build import build
from vitlab.recipes import cost, zoo

# Of the models without head, from the published checkpoints' shapes.
PARAMETERS = {
    "ViT-Ti/16": 5_524_416,
    "ViT-S/16": 21_665_664,
    "ViT-S/32": 22_493_952,
    "ViT-B/16": 85_798_656,
    "ViT-B/32": 87_455_232,
    "ViT-L/16": 303_301_632,
    "ViT-L/32": 305_510_400,
    "ViT-H/14": 630_764_800,
    "ViT-g/14": 1_011_202_432,
    "ViT-G/14": 1_842_775_680,
    "R50+ViT-B/16": 97_890_112,
    "R50+ViT-B/32": 110_176_832,
    "R50+ViT-L/16": 315_458_624,
    "R50+ViT-L/32": 327_969_856,
    "R26+ViT-S/32": 36_046_912,
    "R+ViT-Ti/16": 6_144_704,
    "BiT-R50x1": 23_500_352,
    "BiT-R50x2": 93_891_712,
    "BiT-R101x1": 42_492_480,
    "BiT-R101x3": 381_789_888,
    "BiT-R152x1": 58_136_128,
    "BiT-R152x2": 232_238_208,
    "BiT-R152x4": 928_340_224,
    "BiT-R200x3": 562_488_000,
}

# Table 6: exaFLOPs of pretraining on JFT, whose 303 million images are seen 7 or 14 times.
EXAFLOPS = [
    ("ViT-B/32", 7, 55),
    ("ViT-B/16", 7, 224),
    ("ViT-L/32", 7, 196),
    ("ViT-L/16", 7, 783),
    ("ViT-L/16", 14, 1567),
    ("ViT-H/14", 14, 4262),
    ("R50+ViT-B/32", 7, 106),
    ("R50+ViT-B/16", 7, 274),
    ("R50+ViT-L/32", 7, 246),
    ("R50+ViT-L/16", 14, 1668),
]

VARIANTS = [
    {"position": "learned", "position_at": "every_layer"},
    {"position": "learned", "position_at": "every_layer_shared", "head": "gap"},
    {"position": "learned2d"},
    {"position": "learned2d", "position_at": "every_layer", "head": "gap"},
    {"position": "relative"},
    {"position": "relative", "head": "gap"},
    {"position": "sincos2d", "representation": 24},
    {"position": "none", "num_classes": 0},
    {"resnet": {"blocks": (1, 2), "width": 0.5}, "patch": (1, 2)},
    {"axial": True, "head": "gap"},
]
TINY = zoo.ViTConfig(8, 32, 3, 48, 4, image_size=(32, 48), num_classes=5)


def measured(config):
    """Parameters and FLOPs of the built model, on the meta device, where nothing is computed."""
    with torch.device("meta"):
        model = build(config).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, *config.image_hw))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops()


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    assert cost.parameters(zoo.configure(name, {"num_classes": 0})) == PARAMETERS[name]


@pytest.mark.parametrize("name", zoo.names())
def test_every_model_of_the_zoo_costs_what_the_arithmetic_says(name):
    config = zoo.get(name)
    parameters, flops = measured(config)
    assert cost.parameters(config) == parameters
    assert cost.flops(config) == pytest.approx(flops, rel=0.005)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_every_variant_costs_what_the_arithmetic_says(options):
    config = zoo.configure(TINY, options)
    assert (cost.parameters(config), cost.flops(config)) == measured(config)


@pytest.mark.parametrize("name", ["BiT-R50x1", "AxialResNet50", "R26+ViT-S/32"])
def test_other_image_sizes(name):
    config = zoo.configure(name, {"image_size": (96, 160)})
    assert (cost.parameters(config), cost.flops(config)) == measured(config)


def test_odd_image_sizes():
    config = zoo.configure("BiT-R50x1", {"image_size": (97, 161)})
    assert (cost.parameters(config), cost.flops(config)) == measured(config)


def test_resolution_costs_no_parameters_but_positions():
    small, large = (zoo.configure("ViT-B/16", {"image_size": size}) for size in (224, 384))
    assert cost.parameters(large) - cost.parameters(small) == (24**2 - 14**2) * 768


@pytest.mark.parametrize(("name", "epochs", "exaflops"), EXAFLOPS)
def test_table_6(name, epochs, exaflops):
    # The table is rounded to whole exaFLOPs.
    assert cost.exaflops(zoo.get(name), epochs, 303_000_000) == pytest.approx(exaflops, abs=0.02 * exaflops + 0.5)


def test_core_days_of_table_2():
    # H/14 took 2.5k core-days for 4262 exaFLOPs, which is 32 % of the peak.
    assert cost.tpu_v3_core_days(4262, 0.32) == pytest.approx(2500, rel=0.01)
    assert cost.tpu_v3_core_days(61.5e12 * 86_400 / 1e18, 1.0) == pytest.approx(1.0)
    assert cost.tpu_v3_core_days(100, 0.25) == pytest.approx(2 * cost.tpu_v3_core_days(100, 0.5))


@pytest.mark.parametrize("utilisation", [0, -0.1, 1.01, float("nan")])
def test_utilisation_is_a_share(utilisation):
    with pytest.raises(UserError, match="utilisation"):
        cost.tpu_v3_core_days(1.0, utilisation)


def test_cost_needs_no_time_for_absurd_sizes():
    config = zoo.ViTConfig(1, 10**9, 10**9, 10**9, 1, image_size=10**6)
    assert cost.parameters(config) > 10**27
