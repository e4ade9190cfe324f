"""A parity certificate: how far the outputs of what came out are from those of the model that went in.

What came out is run by the library it is for, where that is installed; otherwise it is read back by vitlab.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.recipes.configs import ResNetConfig, ViTConfig
from vitlab.weights.load import load_model
from vitlab.weights.onnx import INPUT, OUTPUT

LIBRARIES: Mapping[str, str] = {
    "timm": "timm",
    "transformers": "transformers",
    "torchvision": "torchvision",
    "onnx": "onnxruntime",
}
BAR = 1e-4


@dataclass(frozen=True)
class Certificate:
    """What was compared, and the outcome.

    Attributes:
        format: of what came out.
        through: what ran it, such as "timm 1.0.31".
        images: how many images.
        difference: largest absolute difference between logits (features, for a model without a head).
        largest: largest absolute logit of the model that went in, to judge the difference by.
    """

    format: str
    through: str
    images: int
    difference: float
    largest: float

    @property
    def passed(self) -> bool:
        """Whether the difference is at most 1e-4 and a number."""
        return self.difference <= BAR

    def __str__(self) -> str:
        verdict = "parity" if self.passed else "NO PARITY"
        return (
            f"{verdict}: {self.format} through {self.through}, {self.images} images, largest difference "
            f"{self.difference:.1e} (bar {BAR:.0e}, largest logit {self.largest:.2f})"
        )


def certificate(source_model: Model, path: str | Path, format: str, images_BCHW: Tensor) -> Certificate:
    """Compare a model with its export.

    Args:
        source_model: what went in.
        path: what came out.
        format: as in `save_model`.
        images_BCHW: normalised images, (batch, 3, height, width), of the model's image size.

    Raises:
        UserError: what came out cannot be read, or, for ONNX, nothing is installed to run it.
    """
    wanted_BK = _outputs(source_model, images_BCHW)
    library = LIBRARIES.get(format)
    if library is not None and importlib.util.find_spec(library) is not None:
        through = f"{library} {importlib.metadata.version(library)}"
        found_BK = RUNNERS[format](source_model, Path(path), images_BCHW)
    elif format == "onnx":
        raise UserError("a parity certificate of ONNX needs onnxruntime; install it with `pip install 'vitlab[onnx]'`")
    else:
        missing = f" ({library} is not installed)" if library else ""
        through, found_BK = f"vitlab's importer{missing}", _outputs(_read_back(source_model, path), images_BCHW)
    assert found_BK.shape == wanted_BK.shape, (found_BK.shape, wanted_BK.shape)
    difference = (found_BK.double() - wanted_BK.double()).abs().max().item()
    return Certificate(format, through, len(images_BCHW), difference, wanted_BK.abs().max().item())


@functools.cache
def declare_torchvision_operators() -> tuple[torch.library.Library, ...]:
    """Let torchvision be imported beside a PyTorch that its compiled operators do not fit.

    timm and transformers import torchvision, which names two operators while it is imported. Where its compiled part
    cannot be loaded (a CUDA wheel beside a CPU PyTorch), they are declared without an implementation; no ViT uses them.

    Returns:
        What keeps the declarations alive.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return ()
    try:
        for compiled in Path(spec.submodule_search_locations[0]).glob("_C.*"):
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
            return ()
    except OSError:
        pass
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        declaration = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(declaration)  # type: ignore[no-untyped-call]
    return (library,)


@torch.no_grad()
def _outputs(model: Model, images_BCHW: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    outputs_BK: Tensor = model(images_BCHW.to(next(model.parameters()).device))
    model.train(was_training)
    return outputs_BK.cpu()


def _read_back(model: Model, path: str | Path) -> Model:
    return load_model(path, image_size=model.config.image_size)


@torch.no_grad()
def _through_timm(model: Model, path: Path, images_BCHW: Tensor) -> Tensor:
    declare_torchvision_operators()
    import timm

    other = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
    outputs_BK: Tensor = other(images_BCHW)
    return outputs_BK


@torch.no_grad()
def _through_transformers(model: Model, path: Path, images_BCHW: Tensor) -> Tensor:
    declare_torchvision_operators()
    import transformers

    if model.config.num_classes:
        other = transformers.AutoModelForImageClassification.from_pretrained(path, local_files_only=True)
        logits_BK: Tensor = other.eval()(images_BCHW).logits
        return logits_BK
    answer = transformers.AutoModel.from_pretrained(path, local_files_only=True).eval()(images_BCHW)
    pooled_BD: Tensor = (
        answer.pooler_output.flatten(1) if isinstance(model.config, ResNetConfig) else answer.last_hidden_state[:, 0]
    )
    return pooled_BD


@torch.no_grad()
def _through_torchvision(model: Model, path: Path, images_BCHW: Tensor) -> Tensor:
    declare_torchvision_operators()
    vision_transformer = importlib.import_module("torchvision.models.vision_transformer")
    config = model.config
    assert isinstance(config, ViTConfig)
    other = vision_transformer.VisionTransformer(
        config.image_hw[0],
        config.patch_hw[0],
        config.layers,
        config.heads,
        config.hidden,
        config.mlp,
        num_classes=config.num_classes,
        representation_size=config.representation,
    )
    other.load_state_dict(load_file(path))
    outputs_BK: Tensor = other.eval()(images_BCHW)
    return outputs_BK


def _through_onnxruntime(model: Model, path: Path, images_BCHW: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run([OUTPUT], {INPUT: images_BCHW.numpy()})[0])


RUNNERS: Mapping[str, Callable[[Model, Path, Tensor], Tensor]] = {
    "timm": _through_timm,
    "transformers": _through_transformers,
    "torchvision": _through_torchvision,
    "onnx": _through_onnxruntime,
}
