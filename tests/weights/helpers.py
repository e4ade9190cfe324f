"""What the tests of weights share: random weights, golden cases, other libraries, and files made by hand."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import torch

from vitlab.models import create_model

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4

_spec = importlib.util.spec_from_file_location("golden_fill", GOLDEN / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)


def golden_cases():
    """Every reference case with weights, by name."""
    cases = (json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json")))
    return {case["name"]: case for case in cases if "tensors" in case}


def golden_arrays(case):
    return {name: fill.tensor(name, shape) for name, shape in case["tensors"].items()}


def golden_images(case):
    pixels_BHWC = fill.images(len(case["logits"]), case["height"], case["width"])
    return torch.from_numpy(pixels_BHWC).permute(0, 3, 1, 2) / 127.5 - 1


def randomise(module, seed=0):
    """Every parameter random and of a size that keeps activations near 1, so that no part can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * max(1, parameter[0].numel()) ** -0.5)
            else:
                parameter.add_(0.1 * noise)
    return module.eval()


def tiny(**options):
    """A ViT of two layers whose width and heads name themselves (64 per head)."""
    defaults = {"patch": 8, "hidden": 128, "layers": 2, "mlp": 160, "heads": 2, "image_size": 32, "num_classes": 5}
    return randomise(create_model("ViT-Ti/16", **(defaults | options)))


def images_for(model, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *model.config.image_hw, generator=generator)


def largest_difference(one, other):
    return (torch.as_tensor(one).double() - torch.as_tensor(other).double()).abs().max().item()


def same_arrays(one, other):
    """Two models hold the same bytes under the same names."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def save_npz(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return path
