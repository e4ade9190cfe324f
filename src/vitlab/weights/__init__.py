"""Everyone's weights in and out: recognised by what a file holds, never by its name."""

from vitlab.weights.load import load_model
from vitlab.weights.save import save_model

__all__ = ["load_model", "save_model"]
