"""Which format a file is in, by its settings and its arrays' names."""

from collections.abc import Callable, Mapping

from vitlab.errors import UserError
from vitlab.weights.formats import flax, native, timm, torchvision, transformers
from vitlab.weights.plan import Plan, Settings
from vitlab.weights.readers.tensors import Shape, TensorFile, listed

Planner = Callable[[Mapping[str, Shape], Settings], Plan]


def planner(file: TensorFile, settings: Settings) -> Planner:
    """The reader for `file`.

    Raises:
        UserError: the arrays are of no model that vitlab knows.
    """
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
        f"{file.where}: a {file.kind} of {len(shapes)} arrays, such as {listed(shapes, 2)}, which is none of the "
        "models vitlab knows (ViT, hybrid or BiT ResNet of vitlab, Flax, timm, transformers, torchvision, DeiT, DINO "
        "or MAE)"
    )
