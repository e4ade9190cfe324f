"""From a source of weights to a model."""

from collections.abc import Callable, Mapping
from pathlib import Path

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.weights.assemble import assemble
from vitlab.weights.formats import flax, native, timm, torchvision, transformers
from vitlab.weights.plan import LoadPlan, Size, SourceSettings
from vitlab.weights.readers.tensors import Shape, TensorFile, listed, printable
from vitlab.weights.sources import open_source

Planner = Callable[[Mapping[str, Shape], SourceSettings], LoadPlan]


def load_model(source: str | Path, *, num_classes: int | None = None, image_size: Size | None = None) -> Model:
    """The model whose weights lie at `source`, in evaluation mode, in float32 on the CPU.

    Args:
        source: a file or a folder in any known format (vitlab, Flax .npz, timm, Hugging Face, torchvision, DeiT, DINO,
            MAE, BiT, DINOv2; safetensors, .npz, .pt or ONNX), a run directory, or hf://owner/name[@revision].
            It is recognised by its content.
        num_classes: where it differs from the weights' own number, their head is replaced by one of zeros (paper:
            section 3.2); weights without a head give a model without one (its output is the features) unless
            this is given.
        image_size: an int or (height, width) in pixels. Where it differs from the weights' own, the position embeddings
            are resampled by the original's rule (section 3.2). It also settles a grid that is not square, which the
            arrays alone cannot tell.

    Returns:
        A model whose `preprocessing`, class names, GELU flavour and normalisation epsilon are the weights' own.

    Raises:
        UserError: one line that says what the source is, what was expected, and what to do.
    """
    try:
        return _loaded(source, num_classes, image_size).eval()
    except UserError as error:
        # Names and values from a foreign file must not break the line, or the terminal.
        raise UserError(printable(str(error))) from error


def _loaded(source: str | Path, num_classes: int | None, image_size: Size | None) -> Model:
    file, settings = open_source(source, image_size)
    try:
        plan = _planner(file, settings)(file.shapes, settings)
    except UserError as error:
        # A config refuses sizes without knowing where they come from.
        raise error if file.where in str(error) else UserError(f"{file.where}: {error}") from error
    return assemble(file, plan, num_classes=num_classes, image_size=image_size)


def _planner(file: TensorFile, settings: SourceSettings) -> Planner:
    """What understands the arrays of `file`: by its config where that is vitlab's, else by the names of its arrays."""
    shapes = file.shapes
    if native.recognise(settings):
        return native.plan
    if flax.recognise(shapes):
        return flax.plan
    if timm.recognise(shapes):
        return timm.plan
    if transformers.recognise(shapes):
        return transformers.plan
    if torchvision.recognise(shapes):
        return torchvision.plan
    raise UserError(
        f"{file.where}: a {file.kind} of {len(shapes)} arrays, such as {listed(shapes, 2)}, which matches none of the "
        "models vitlab knows (ViT, hybrid or BiT ResNet of vitlab, Flax, timm, transformers, torchvision, DeiT, DINO "
        "or MAE)"
    )
