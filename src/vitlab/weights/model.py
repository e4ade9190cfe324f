"""The values that every model of vitlab carries beside its arrays, with their types."""

import torch

from vitlab.errors import UserError
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig


def config_of(model: torch.nn.Module) -> ModelConfig:
    """The config the model was built from.

    Raises:
        UserError: the module is not one of vitlab's models.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, ViTConfig | ResNetConfig):
        raise UserError(
            f"{type(model).__name__} is not a vitlab model: make one with create_model or load_model"
        )
    return config


def preprocessing_of(model: torch.nn.Module) -> Preprocessing:
    """How images become the model's input."""
    value = model.preprocessing
    assert isinstance(value, Preprocessing)
    return value


def classes_of(model: torch.nn.Module) -> tuple[str, ...] | None:
    """The classes' names, None where unknown."""
    value = model.classes
    assert value is None or isinstance(value, tuple)
    return value
