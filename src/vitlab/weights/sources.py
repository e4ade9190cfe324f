"""Where weights lie: a file, a folder, a run directory or the Hugging Face hub; recognised by content."""

import json
from collections.abc import Mapping
from pathlib import Path

from vitlab.errors import UserError
from vitlab.weights import hub
from vitlab.weights.plan import Size, SourceSettings
from vitlab.weights.readers import npz, onnx, safetensors, torch
from vitlab.weights.readers.pickles import globals_of
from vitlab.weights.readers.tensors import TensorFile, merge, shown

MOST_JSON_BYTES = 16 * 2**20
MOST_SHARDS = 1000
MOST_FILES = 1000
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
STANDARD = ("model.safetensors", "pytorch_model.bin")
KNOWN = "safetensors, npz, PyTorch (.pt, .pth, .bin) and ONNX files"
ZIP, PICKLE, LFS = b"PK\x03\x04", b"\x80", b"version https://git-lfs"


def open_source(source: str | Path, image_size: Size | None = None) -> tuple[TensorFile, SourceSettings]:
    """The arrays of a file, a folder or a hub id, and the settings that lie beside them.

    Args:
        source: as in `load_model`.
        image_size: what the caller asked for, which is one of the settings.

    Raises:
        UserError: nothing is there, or nothing that vitlab reads.
    """
    path = hub.download(source) if isinstance(source, str) and hub.is_id(source) else Path(source)
    try:
        if path.is_dir():
            return _folder(path, image_size)
        if path.is_file():
            return _single(path, image_size)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror})") from error
    raise UserError(f"{shown(str(source))}: no such file or folder; for the hub write hf://owner/name")


def open_file(path: Path) -> TensorFile:
    """The arrays of one file, whatever its name.

    Raises:
        UserError: not a file of weights, a damaged one, or one that would have to be executed.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(ZIP):
        return torch.open_torch(path) if torch.is_torch(path) else npz.open_npz(path)
    if safetensors.looks_like(head, size):
        return safetensors.open_safetensors(path)
    if head.startswith(PICKLE):
        raise UserError(_pickle_message(path))
    if head.startswith(LFS):
        raise UserError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull` where it came from")
    if onnx.looks_like(head):
        return onnx.open_onnx(path)
    what = "empty" if size == 0 else f"not a weights file that vitlab knows ({size} bytes)"
    raise UserError(f"{path}: is {what}; known are {KNOWN}; if it should be one, download it again")


def read_json(path: Path) -> Mapping[str, object]:
    """The object in a JSON file; empty where there is no file.

    Raises:
        UserError: too large, not JSON, or not an object.
    """
    if not path.is_file():
        return {}
    if path.stat().st_size > MOST_JSON_BYTES:
        raise UserError(f"{path}: is larger than the {MOST_JSON_BYTES} bytes that are read of a JSON file")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({shown(str(error))})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds a {type(value).__name__}, expected an object with settings")
    return value


def _single(path: Path, image_size: Size | None) -> tuple[TensorFile, SourceSettings]:
    file = open_file(path)
    # A safetensors or PyTorch file does not say what the model is; the config.json beside it does.
    if file.kind in ("safetensors file", "PyTorch file"):
        return file, _settings_beside(file, path.parent, image_size)
    return file, SourceSettings(file.where, file.config, image_size=image_size)


def _folder(path: Path, image_size: Size | None) -> tuple[TensorFile, SourceSettings]:
    if not (path / "config.json").is_file() and (path / "model" / "config.json").is_file():
        path = path / "model"  # a run directory
    file = merge(str(path), [open_file(shard) for shard in _weights_files(path)])
    return file, _settings_beside(file, path, image_size)


def _settings_beside(file: TensorFile, folder: Path, image_size: Size | None) -> SourceSettings:
    config, preprocessor = (read_json(folder / name) for name in ("config.json", "preprocessor_config.json"))
    return SourceSettings(file.where, config, preprocessor, image_size)


def _weights_files(path: Path) -> list[Path]:
    for index in INDEXES:
        if (path / index).is_file():
            return _shards(path / index)
    for name in STANDARD:
        if (path / name).is_file():
            return [path / name]
    found = [entry for entry in sorted(path.iterdir())[:MOST_FILES] if entry.is_file() and _maybe_weights(entry)]
    if len(found) != 1:
        count = f"{len(found)} weights files, such as {found[0].name}" if found else "no weights file"
        raise UserError(f"{path}: holds {count}; name the file to load, or a folder with model.safetensors")
    return found


def _maybe_weights(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    return head.startswith(ZIP) or safetensors.looks_like(head, size) or onnx.looks_like(head)


def _shards(index: Path) -> list[Path]:
    places = read_json(index).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    if not names or len(names) > MOST_SHARDS or any(Path(name).name != name for name in names):
        raise UserError(f"{index}: does not name the shards that lie beside it; download the folder again")
    lost = [name for name in names if not (index.parent / name).is_file()]
    if lost:
        raise UserError(f"{index}: names {len(names)} shards, '{shown(lost[0])}' is missing; download the folder again")
    return [index.parent / name for name in names]


def _pickle_message(path: Path) -> str:
    named = globals_of(path)
    calls = f" that would call {', '.join(named)}" if named else ""
    return (
        f"{path}: is a pickle{calls}; vitlab executes nothing: save the weights as safetensors, or with a "
        "torch.save of PyTorch 1.6 or newer"
    )
