"""The models: plain, hybrid and axial Vision Transformers, and the ResNets they are compared with."""

from vitlab.models.build import create_model
from vitlab.recipes.zoo import ResNetConfig, ResNetStem, ViTConfig
from vitlab.recipes.zoo import names as list_models

__all__ = ["ResNetConfig", "ResNetStem", "ViTConfig", "create_model", "list_models"]
