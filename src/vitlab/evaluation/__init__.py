"""Measuring a model: accuracy, few-shot accuracy, speed.

The modules below are imported when they are first used, so that a training run loads `accuracy` alone.
Their types are in `__init__.pyi`.
"""

import importlib
from types import ModuleType

__all__ = ["accuracy", "fewshot"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"vitlab.evaluation.{name}")
    raise AttributeError(f"module 'vitlab.evaluation' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
