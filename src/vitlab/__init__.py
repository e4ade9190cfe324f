"""vitlab: the whole life of a Vision Transformer.

The names below are imported when they are first used: `import vitlab` and `vitlab --help` do not wait for torch.
Their types are in `__init__.pyi`.
"""

import importlib
from typing import Any

__all__ = [
    "Recipe",
    "Run",
    "ViTClassifier",
    "create_model",
    "evaluation",
    "inspection",
    "list_models",
    "load_model",
    "load_recipe",
    "models",
    "recipes",
    "run",
    "save_model",
]

_HOMES = {
    "Recipe": "vitlab.recipes.schema",
    "Run": "vitlab.runner",
    "ViTClassifier": "vitlab.estimator",
    "create_model": "vitlab.models",
    "list_models": "vitlab.models",
    "load_model": "vitlab.weights",
    "load_recipe": "vitlab.recipes.library",
    "run": "vitlab.runner",
    "save_model": "vitlab.weights",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"vitlab.{name}")
    raise AttributeError(f"module 'vitlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
