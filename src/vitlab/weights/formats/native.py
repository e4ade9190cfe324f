"""vitlab's own format: a folder with config.json (what the model is) and model.safetensors (its arrays)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file

from vitlab.errors import UserError
from vitlab.files import write_json
from vitlab.models.build import Model
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.preprocessing import Preprocessing
from vitlab.weights.formats.exporting import new_folder
from vitlab.weights.plan import ArraySource, LoadPlan, SourceSettings
from vitlab.weights.readers.tensors import Shape

FORMAT = "vitlab"
VERSION = 1
KINDS: Mapping[str, type[ModelConfig]] = {"vit": ViTConfig, "resnet": ResNetConfig}


def recognise(settings: SourceSettings) -> bool:
    """Whether config.json is vitlab's."""
    return settings.config.get("format") == FORMAT


def plan(shapes: Mapping[str, Shape], settings: SourceSettings) -> LoadPlan:
    """The model that config.json describes; every array keeps its name.

    Raises:
        UserError: another version, an unknown kind of model, or values that do not fit.
    """
    version = settings.config.get("version")
    if version != VERSION:
        raise UserError(
            f"{settings.where}: config.json is version {version!r} of the format, this vitlab reads version {VERSION}"
        )
    kind = settings.config.get("model")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{settings.where}: config.json has model {kind!r}, known are {', '.join(KINDS)}")
    config = _value(KINDS[kind], settings.config.get("config"), settings.where, "config")
    preprocessing = _value(Preprocessing, settings.config.get("preprocessing"), settings.where, "preprocessing")
    classes = _value(tuple[str, ...] | None, settings.config.get("classes"), settings.where, "classes")
    unchanged = {name: ArraySource((name,)) for name in shapes}
    return LoadPlan("vitlab's own format", config, unchanged, preprocessing, classes=classes)


def description_of(model: Model) -> dict[str, object]:
    """What config.json says of a model: what it is, how its images are prepared, what its classes are called."""
    config = model.config
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": next(kind for kind, made in KINDS.items() if isinstance(config, made)),
        "config": TypeAdapter(type(config)).dump_python(config, mode="json"),
        "preprocessing": TypeAdapter(Preprocessing).dump_python(model.preprocessing, mode="json"),
        "classes": model.classes,
    }


def save(model: Model, path: Path) -> None:
    """Write the folder completely, or not at all.

    Raises:
        UserError: `path` holds something other than a model, or cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with new_folder(path) as folder:
        write_json(folder / "config.json", description_of(model))
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _value(kind: Any, value: object, where: str, key: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value)
    except UserError as error:
        raise UserError(f"{where}: config.json: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([key, *(str(step) for step in first["loc"])])
        raise UserError(f"{where}: config.json has an invalid {place}: {first['msg']}") from error
