"""What a model's outputs mean: probabilities and names."""

import torch

from vitlab.models.build import build, class_names, probabilities
from vitlab.recipes.zoo import ViTConfig


def test_probabilities_are_computed_in_float32_whatever_the_precision_of_the_logits():
    logits_BK = torch.tensor([[0.0, 1.0, 2.0], [1e4, -1e4, 0.0]], dtype=torch.bfloat16)
    found_BK = probabilities(logits_BK)
    assert found_BK.dtype == torch.float32
    assert torch.allclose(found_BK, torch.softmax(logits_BK.double(), -1).float(), atol=1e-7)


def test_a_model_without_names_has_numbered_classes():
    model = build(ViTConfig(8, 32, 1, 64, 4, image_size=16, num_classes=3))
    assert class_names(model) == ("class 0", "class 1", "class 2")
    model.classes = ("bag", "hat", "shoe")
    assert class_names(model) == ("bag", "hat", "shoe")
