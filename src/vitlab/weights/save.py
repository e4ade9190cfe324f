"""From a model to a file or folder in anyone's format."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError

from vitlab.errors import UserError, unknown_name
from vitlab.models.build import Model
from vitlab.weights.formats import flax, native, onnx, timm, torchvision, transformers

FORMATS: Mapping[str, Callable[[Model, Path], None]] = {
    "vitlab": native.save,
    "flax": flax.save,
    "timm": timm.save,
    "transformers": transformers.save,
    "torchvision": torchvision.save_file,
    "onnx": onnx.save,
}
OF_SYSTEM = re.compile(r"\(os error (\d+)\)")  # how safetensors tells of a disk's errors


def save_model(model: Model, path: str | Path, *, format: str = "vitlab") -> None:
    """Write a model's weights, whole or not at all.

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
    try:
        FORMATS[format](model, Path(path))
    except OSError as error:
        raise _unwritten(path, error.strerror or str(error)) from error
    except SafetensorError as error:
        told = OF_SYSTEM.search(str(error))
        if told is None:
            raise
        raise _unwritten(path, os.strerror(int(told[1]))) from error


def _unwritten(path: str | Path, reason: str) -> UserError:
    return UserError(
        f"cannot write the model to {path}: {reason}: make room there, or see that it may be written, and do it again "
        "(training: with --resume)"
    )
