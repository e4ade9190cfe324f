"""What exports share: checking that the format can hold the model, folding what can be folded, and writing."""

import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from vitlab.errors import UserError
from vitlab.files import folder_aside, write_bytes
from vitlab.models import positions
from vitlab.models.build import Model
from vitlab.models.vit import VisionTransformer
from vitlab.recipes.configs import Gelu, Head, ModelConfig, ViTConfig
from vitlab.recipes.preprocessing import Preprocessing

log = logging.getLogger(__name__)

ELSEWHERE = "save it as vitlab or onnx"
MODEL_FILES = {"config.json", "model.safetensors", "preprocessor_config.json"}
SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors passes on an error of the operating system


@dataclass(frozen=True)
class FormatLimits:
    """What a format has a place for.

    Attributes:
        name: of the format, for messages.
        heads, gelus: the variants it has.
        representation, hybrids, resnets, rectangles, headless: whether it has the hidden head layer, hybrids, BiT
            ResNets, images and patches that are not square, models without a head.
        norm_eps: the only epsilon its readers use; None where it names its own.
        preprocessing: the only preprocessing its readers assume; None where it names its own.
    """

    name: str
    heads: Collection[Head] = ("token", "gap")
    gelus: Collection[Gelu] = ("tanh", "erf")
    representation: bool = True
    hybrids: bool = True
    resnets: bool = True
    rectangles: bool = True
    headless: bool = True
    norm_eps: float | None = None
    preprocessing: Preprocessing | None = None


def check_limits(model: Model, holds: FormatLimits) -> None:
    """Refuse a model that the format has no place for; log what its readers have to know.

    Raises:
        UserError: names what the format cannot hold, and an alternative.
    """
    lacking = _lacking(model.config, holds)
    if lacking:
        raise UserError(f"{holds.name} cannot hold {lacking[0]}: {ELSEWHERE}")
    config = model.config
    if holds.norm_eps is not None and isinstance(config, ViTConfig) and config.norm_eps != holds.norm_eps:
        log.warning("%s readers use norm_eps=%g, this model has %g", holds.name, holds.norm_eps, config.norm_eps)
    if holds.preprocessing is not None:
        assumed, own = holds.preprocessing, model.preprocessing
        if (own.mean, own.std) != (assumed.mean, assumed.std):
            log.warning(
                "%s has no place for mean %s and std %s: pass them on with the file", holds.name, own.mean, own.std
            )


def _lacking(config: ModelConfig, holds: FormatLimits) -> list[str]:
    found = [(config.num_classes == 0 and not holds.headless, "a model without a head")]
    if not isinstance(config, ViTConfig):
        found += [
            (not holds.resnets, "a ResNet"),
            (config.axial_heads is not None, "an AxialResNet"),
        ]
        return [what for lacks, what in found if lacks]
    square = config.patch_hw[0] == config.patch_hw[1] and config.image_hw[0] == config.image_hw[1]
    found += [
        (config.axial, "an axial model"),
        (positions.KINDS[config.position].by_distance, f"position='{config.position}'"),
        (config.position_at != "input", f"position_at='{config.position_at}'"),
        (config.head not in holds.heads, f"head='{config.head}'"),
        (config.gelu not in holds.gelus, f"gelu='{config.gelu}'"),
        (config.representation is not None and not holds.representation, "the representation layer"),
        (config.resnet is not None and not holds.hybrids, "a hybrid"),
        (not square and not holds.rectangles, f"patches {config.patch} of images {config.image_size}"),
    ]
    return [what for lacks, what in found if lacks]


def state_of(model: Model) -> dict[str, Tensor]:
    """The model's arrays on the CPU, its positions as one table `pos_embed` (1, tokens, width), whatever their variant.

    A table of fixed or two-dimensional positions, or of zeros where there are none, gives the same outputs.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if isinstance(model, VisionTransformer) and model.config.position != "learned":
        for name in positions.table_shapes(model.config):
            del state[name]
        vectors_1ND = model.positions()
        if vectors_1ND is None:
            vectors_1ND = torch.zeros(1, model.config.tokens, model.config.hidden)
        state["pos_embed"] = vectors_1ND.detach().cpu()
    return state


def class_names(model: Model) -> Mapping[int, str]:
    """Class names by index: the model's, or numbers."""
    names = model.classes or tuple(f"LABEL_{index}" for index in range(model.config.num_classes))
    return dict(enumerate(names))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path` once it is complete.

    Raises:
        UserError: `path` is a file, or a folder that holds more than a model, which would be lost; or it cannot be
            written.
    """
    with _explained_errors(path):
        if path.exists() and not path.is_dir():
            raise UserError(f"{path}: is a file, the model needs a folder; give a new name")
        if path.is_dir():
            others = sorted(entry.name for entry in path.iterdir() if entry.name not in MODEL_FILES)
            if others:
                raise UserError(f"{path}: holds '{others[0]}' and would be replaced; give a new or empty folder")
        with folder_aside(path.resolve()) as folder:
            yield folder


def write_file(path: Path, data: bytes, *, example: str) -> None:
    """Write a model that is one file, completely or not at all.

    Args:
        path: where to.
        data: the file's content.
        example: a usual name for such a file, for the message.

    Raises:
        UserError: `path` is a folder, or cannot be written.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, this format is one file; give a name such as {example}")
    with _explained_errors(path):
        write_bytes(path, data)


@contextmanager
def _explained_errors(path: Path) -> Iterator[None]:
    """What the disk refuses inside, as one line for the user."""
    try:
        yield
    except OSError as error:
        raise _not_written(path, error.strerror or str(error)) from error
    except SafetensorError as error:
        number = SYSTEM_ERROR.search(str(error))
        if number is None:
            raise
        raise _not_written(path, os.strerror(int(number[1]))) from error


def _not_written(path: Path, reason: str) -> UserError:
    return UserError(
        f"cannot write the model to {path}: {reason}: free some space or make the folder writable, and run the command "
        "again (training: with --resume)"
    )
