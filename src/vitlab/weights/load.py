"""From a source of weights to a model."""

from pathlib import Path

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.weights.assemble import assemble
from vitlab.weights.plan import Settings, Size
from vitlab.weights.readers.tensors import printable
from vitlab.weights.recognise import planner
from vitlab.weights.sources import find


def load_model(source: str | Path, *, num_classes: int | None = None, image_size: Size | None = None) -> Model:
    """The model whose weights lie at `source`, in evaluation mode, in float32 on the CPU.

    Args:
        source: a file or a folder in any known format (vitlab, Flax .npz, timm, Hugging Face, torchvision, DeiT, DINO,
            MAE, BiT, DINOv2; safetensors, .npz, .pt or ONNX), a run directory, or hf://owner/name[@revision].
            It is recognised by its content.
        num_classes: another number than the weights' throws their head away and starts one of zeros (paper:
            section 3.2); weights without a head give a model without one (its output are the features) unless
            this is given.
        image_size: an int or (height, width) in pixels. Another than the weights' resamples the position embeddings
            by the original's rule (section 3.2). It also names a grid that is not square, which the arrays alone
            cannot tell.

    Returns:
        A model whose `preprocessing`, class names, GELU flavour and normalisation epsilon are the weights' own.

    Raises:
        UserError: one line that says what the source is, what was expected, and what to do.
    """
    try:
        return _loaded(source, num_classes, image_size).eval()
    except UserError as error:
        # Names and values out of a foreign file must not break the line, or the terminal.
        raise UserError(printable(str(error))) from error


def _loaded(source: str | Path, num_classes: int | None, image_size: Size | None) -> Model:
    found = find(source)
    where = found.file.where
    settings = Settings(where, found.config, found.preprocessor, image_size)
    try:
        plan = planner(found.file, settings)(found.file.shapes, settings)
    except UserError as error:
        # A config refuses sizes without knowing where they come from.
        raise error if where in str(error) else UserError(f"{where}: {error}") from error
    return assemble(found.file, plan, num_classes=num_classes, image_size=image_size)
