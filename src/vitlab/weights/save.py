"""From a model to a file or folder in any known format."""

from collections.abc import Callable, Mapping
from pathlib import Path

from vitlab.errors import unknown_name
from vitlab.models.build import Model
from vitlab.weights.formats import flax, native, onnx, timm, torchvision, transformers

FORMATS: Mapping[str, Callable[[Model, Path], None]] = {
    "vitlab": native.save,
    "flax": flax.save,
    "timm": timm.save,
    "transformers": transformers.save,
    "torchvision": torchvision.save,
    "onnx": onnx.save,
}


def save_model(model: Model, path: str | Path, *, format: str = "vitlab") -> None:
    """Write a model's weights, completely or not at all.

    Args:
        model: made by `create_model` or `load_model`.
        path: a new folder for vitlab, timm, transformers; a file for flax (.npz), torchvision (.safetensors) and onnx.
        format: "vitlab", "flax", "timm", "transformers", "torchvision" or "onnx".

    Raises:
        UserError: an unknown format, a model that the format cannot hold, or a `path` that holds something else or
            cannot be written.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS, listing=f"known are {', '.join(FORMATS)}")
    FORMATS[format](model, Path(path))
