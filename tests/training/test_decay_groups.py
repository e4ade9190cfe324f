"""Which weights decay: all, as in the paper, or kernels only, as in big_vision."""

import pytest
import torch

from vitlab import create_model
from vitlab.recipes.schema import OptimizerConfig
from vitlab.training.optimizers import build_optimizer


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("kernels_only", [False, True])
def test_without_gradients_only_what_decays_gets_smaller(kind, kernels_only):
    model = create_model("R+ViT-Ti/16", num_classes=3, image_size=32, hidden=16, layers=1, heads=2, mlp=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    part = OptimizerConfig(kind=kind, learning_rate=0.1, weight_decay=0.5, decay_kernels_only=kernels_only)
    optimizer = build_optimizer(model.parameters(), part)
    optimizer.step()
    spared = {name for name, parameter in model.named_parameters() if (parameter == 1).all()}
    every = {name for name, _ in model.named_parameters()}
    kernels = {name for name in every if name.endswith("weight") and "norm" not in name and "gn" not in name}
    assert len(kernels) == 7  # root convolution, patches, qkv, projection, two of the MLP, head
    assert spared == (every - kernels if kernels_only else set())
