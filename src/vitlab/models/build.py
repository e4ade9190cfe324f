"""From a name or a configuration to a model, its new head, its digest, and what its outputs mean.

Shapes: B images of a batch, K classes.
"""

import hashlib

import torch
from torch import Tensor, nn

from vitlab.models.resnet import ResNet
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.configs import ModelConfig, ViTConfig
from vitlab.recipes.zoo import configure

Model = VisionTransformer | ResNet
# How the names of a head's arrays begin; fine-tuning replaces them, the representation layer too (paper: section 3.2).
HEAD_MODULES = ("head.", "pre_logits.")


def build(config: ModelConfig) -> Model:
    """A new model of this configuration, initialised from torch's global random numbers."""
    return VisionTransformer(config) if isinstance(config, ViTConfig) else ResNet(config)


def create_model(
    model: str | ModelConfig, *,
    num_classes: int | None = None, image_size: int | tuple[int, int] | None = None, **options: object,
) -> Model:  # fmt: skip
    """A new model, initialised as in the paper from torch's global random numbers: seed them for the same weights.

    Args:
        model: a name, such as "ViT-B/16" (`vitlab.list_models()` has all), or a configuration.
        num_classes: outputs of the final linear layer; 1000 where a name is given, else the configuration's.
        image_size: of the input, an int or (height, width); 224 where a name is given, else the
            configuration's.
        options: fields of the configuration to change, such as `dropout=0.1` or `position="sincos2d"`.

    Returns:
        The model, in training mode, on torch's default device.

    Raises:
        UserError: an unknown name or option, or sizes that do not fit together.
    """
    sizes = {"num_classes": num_classes, "image_size": image_size}
    given = {name: value for name, value in sizes.items() if value is not None}
    return build(configure(model, given | options))


def replace_head(model: Model, num_classes: int) -> None:
    """Replace the complete head by a linear layer at zero (paper: section 3.2).

    The hidden tanh layer of a pretraining head goes too, and so do the class names.

    Args:
        model: is changed in place.
        num_classes: outputs of the new head.
    """
    model.reset_head(num_classes)


def classifier(model: Model) -> nn.Linear | nn.Conv2d | None:
    """The layer that gives the logits; in a ResNet a 1x1 convolution; None in a model without classes."""
    final = model.head.fc if isinstance(model, ResNet) else model.head
    return final if isinstance(final, nn.Linear | nn.Conv2d) else None


def model_digest(model: nn.Module) -> str:
    """The SHA-256 of all weights with their names, and of the configuration, as hexadecimal digits."""
    digest = hashlib.sha256(str(getattr(model, "config", "")).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def class_names(model: Model) -> tuple[str, ...]:
    """A name for each of the model's outputs: its own, or "class 0", "class 1" and so on where it has none."""
    return model.classes or tuple(f"class {number}" for number in range(model.config.num_classes))


def probabilities(logits_BK: Tensor) -> Tensor:
    """The softmax of a batch's logits, computed in float32 and brought to the CPU."""
    return logits_BK.float().softmax(-1).cpu()
