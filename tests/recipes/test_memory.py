"""The arithmetic of memory agrees with what autograd keeps, and with what processes were measured to take."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from vitlab.errors import UserError
from vitlab.models.build import build
from vitlab.recipes import cost, memory, zoo

MEASURED = json.loads((Path(__file__).parents[2] / "benchmarks/results/memory.json").read_text())
GB = 10**9
SMALL = zoo.ViTConfig(8, 64, 3, 160, 4, image_size=(64, 96), num_classes=5)


def kept(config, batch, bfloat16=False):
    """Bytes of the storages that autograd keeps of one forward pass, the weights' own and the images' left out."""
    model = build(config).train()
    images = torch.zeros(batch, 3, *config.image_hw)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), images]}
    sizes, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16) if bfloat16 else nullcontext():
            model(images)
    return sum(sizes.values())


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 0.02),
        ({"head": "gap"}, 0.01),
        ({"axial": True, "head": "gap"}, 0.02),
        ({"position": "relative"}, 0.03),
        ({"resnet": {"blocks": (1, 2)}, "patch": 1}, 0.06),
    ],
    ids=str,
)
def test_what_autograd_keeps_of_an_image(options, tolerance):
    config = zoo.configure(SMALL, options)
    found = (kept(config, 3) - kept(config, 1)) / 2
    image = 3 * config.image_hw[0] * config.image_hw[1] * 4
    predicted = memory.training_memory(config, 1).activations - image
    assert predicted == pytest.approx(found, rel=tolerance)


@pytest.mark.parametrize(("name", "tolerance"), [("BiT-R50x1", 0.02), ("AxialResNet50", 0.12)])
def test_what_autograd_keeps_of_a_resnet(name, tolerance):
    config = zoo.configure(name, {"image_size": 64})
    one, two = kept(config, 1), kept(config, 2)
    found = memory.training_memory(config, 1)
    assert found.activations - 3 * 64 * 64 * 4 == pytest.approx(two - one, rel=tolerance)
    if name == "BiT-R50x1":
        assert found.casts == pytest.approx(2 * one - two, rel=0.02)  # standardised kernels


@pytest.mark.parametrize("case", MEASURED["cases"], ids=lambda case: f"{case['model']}-{case['batch']}")
def test_measured_peaks(case):
    """On the CPU, by resident size; benchmarks/memory.py measures them."""
    predicted = memory.training_memory(zoo.get(case["model"]), case["batch"]).peak
    assert predicted == pytest.approx(case["measured"], rel=0.15)


def test_ti_s_and_b_were_measured_at_three_batch_sizes_each():
    found = {(case["model"], case["batch"]) for case in MEASURED["cases"]}
    for name in ("ViT-Ti/16", "ViT-S/16", "ViT-B/16"):
        assert sum(model == name for model, _ in found) >= 3


def test_parts_by_hand():
    config = zoo.configure("ViT-B/16", {})
    count = cost.parameters(config)
    adam = memory.training_memory(config, 4)
    assert (adam.weights, adam.gradients, adam.moments, adam.average) == (4 * count, 4 * count, 8 * count, 0)
    sgd = memory.training_memory(config, 4, optimizer="sgd", averaging=True)
    assert (sgd.moments, sgd.average) == (4 * count, 4 * count)
    assert memory.training_memory(config, 4, precision="bfloat16").casts == 2 * count
    twice = memory.training_memory(config, 8)
    assert (twice.activations, twice.workspace) == (2 * adam.activations, 2 * adam.workspace)


def test_the_peak_is_at_the_start_or_at_the_end_of_the_backward_pass():
    held = dict(weights=1, moments=2, average=4, workspace=8)
    assert memory.Memory(**held, gradients=16, activations=20, casts=3).peak == 15 + 23
    assert memory.Memory(**held, gradients=32, activations=20, casts=3).peak == 15 + 32


def test_less_is_kept_in_bfloat16_and_much_less_where_blocks_are_computed_again():
    config = zoo.get("ViT-L/16")
    full = memory.training_memory(config, 16).activations
    half = memory.training_memory(config, 16, precision="bfloat16").activations
    again = memory.training_memory(config, 16, recompute=True).activations
    assert 0.5 * full < half < 0.62 * full
    assert again < 0.2 * full
    inputs, block = config.layers * config.tokens * config.hidden * 4, full / 16 / config.layers
    assert again / 16 > inputs + 0.9 * block  # the block that is being computed again is there in full


@pytest.mark.parametrize(
    "options",
    [{}, {"recompute": True}, {"optimizer": "sgd"}, {"precision": "bfloat16", "averaging": True}],
    ids=str,
)
@pytest.mark.parametrize("name", ["ViT-B/16", "BiT-R50x1", "R50+ViT-B/16"])
def test_the_largest_batch_fits_and_one_more_does_not(name, options):
    config, device = zoo.get(name), 40 * GB
    batch = memory.largest_batch(config, device, **options)
    assert memory.training_memory(config, batch, **options).peak <= device - memory.KEPT_FREE
    assert memory.training_memory(config, batch + 1, **options).peak > device - memory.KEPT_FREE


@pytest.mark.parametrize("name", ["ViT-B/16", "BiT-R50x1"])
def test_the_largest_forward_pass_fits_and_one_more_image_does_not(name):
    config, room = zoo.get(name), 40 * GB - memory.KEPT_FREE
    batch = memory.largest_inference_batch(config, 40 * GB)
    assert memory.inference_memory(config, batch) <= room < memory.inference_memory(config, batch + 1)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("ViT-B/16", 197 * (2 * 3072 + 2 * 768)), ("BiT-R50x1", 56 * 56 * 12 * 128)],  # fc1 and GELU; the second stage
)
def test_a_forward_pass_by_hand(name, numbers):
    config = zoo.configure(name, {"image_size": 224})
    one, two = memory.inference_memory(config, 1), memory.inference_memory(config, 2)
    assert two - one == 4 * (3 * 224 * 224 + numbers)
    assert one - (two - one) == 4 * cost.parameters(config)


def test_masks_of_dropout_and_tables_of_relative_positions_by_hand():
    plain = zoo.configure(SMALL, {"head": "gap"})
    drawn = zoo.configure(plain, {"dropout": 0.1})
    masks = memory.training_memory(drawn, 1).activations - memory.training_memory(plain, 1).activations
    assert masks == plain.layers * plain.tokens * (2 * 64 + 160)
    relative = zoo.configure(plain, {"position": "relative"})
    assert memory.training_memory(relative, 1).casts == relative.layers * relative.tokens**2 * (64 // 4 * 4 + 2 * 8)


def test_too_small_a_device_takes_no_image():
    assert memory.largest_batch(zoo.get("ViT-H/14"), 8 * GB) == 0
    assert memory.largest_inference_batch(zoo.get("ViT-G/14"), 4 * GB) == 0
    assert memory.largest_inference_batch(zoo.get("ViT-B/16"), 16 * GB) > 1000


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * GB), ("16 GiB", 16 * 2**30), ("512MB", 512 * 10**6), ("2mib", 2 * 2**20), ("1.5 GB", 3 * GB // 2)],
)
def test_sizes_in_words(text, size):
    assert memory.bytes_of(text) == size


@pytest.mark.parametrize("text", ["80", "GB", "x GB", "-1GB", "1e3GB", "", "²GB", "٣GB"])
def test_what_is_no_size(text):
    with pytest.raises(UserError, match="80GB"):
        memory.bytes_of(text)
