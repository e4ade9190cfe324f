"""Everyone's weights in and out: recognised by what a file holds, never by its name.

Names are imported at first use: training from scratch needs no format but vitlab's own.
"""

import importlib
from typing import Any

_HOMES = {"load_model": "vitlab.weights.load", "save_model": "vitlab.weights.save"}

__all__ = ["load_model", "save_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitlab.weights' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
