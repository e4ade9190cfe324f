"""Checkpoints: safetensors files and a JSON manifest with their hashes, written aside and renamed into place.

A checkpoint is a folder `step-N` that is whole or absent. Loading takes the newest one whose hashes are right and
says which ones it passed over. No pickle is read or written.
"""

import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vitlab import files
from vitlab.errors import UserError
from vitlab.training.optimizers import PolyakAverage

VERSION = 1
MANIFEST = "manifest.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """Everything that a step changes. Order and augmentation are functions of the step, so this is all there is."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: PolyakAverage | None


def save_checkpoint(folder: Path, step: int, state: TrainingState, *, keep: int = 2) -> Path:
    """Write `folder/step-N` for the state after `step` updates, then drop all but the newest `keep`."""
    final = folder / f"step-{step:08d}"
    contents = {"model": _cpu(state.model.state_dict()), "optimizer": _optimizer_tensors(state)}
    if state.average is not None:
        contents["average"] = _cpu(state.average.sums)
    updates = state.average.updates if state.average is not None else 0
    with files.folder_aside(final) as aside:
        entries = {}
        for name, tensors in contents.items():
            data = save(tensors)
            (aside / f"{name}.safetensors").write_bytes(data)
            entries[f"{name}.safetensors"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest = {"version": VERSION, "step": step, "average_updates": updates, "files": entries}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=2))
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_newest(folder: Path, state: TrainingState) -> int:
    """Bring `state` to the newest readable checkpoint of `folder`; returns its step, 0 if there is none."""
    candidates = _newest_first(folder)
    for candidate in candidates:
        try:
            manifest, tensors = _read(candidate)
        except UserError:
            raise
        except (OSError, ValueError, KeyError) as error:
            log.warning("checkpoint %s is not readable (%s); trying the one before", candidate.name, error)
            continue
        _restore(manifest, tensors, state, candidate)
        return int(manifest["step"])
    if candidates:
        raise UserError(f"no checkpoint in {folder} is readable; start anew with another --out")
    return 0


def _read(folder: Path) -> tuple[dict[str, int], dict[str, dict[str, Tensor]]]:
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest["version"] != VERSION:
        raise UserError(f"checkpoint {folder} is of version {manifest['version']}; this vitlab reads version {VERSION}")
    tensors = {}
    for name, entry in manifest["files"].items():
        path = folder / Path(name).name
        if path.stat().st_size != entry["bytes"]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {entry['bytes']}")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(f"{name} does not have its hash")
        tensors[path.stem] = load(data)
    return manifest, tensors


def _restore(
    manifest: dict[str, int], tensors: dict[str, dict[str, Tensor]], state: TrainingState, where: Path
) -> None:
    own = {name: value.shape for name, value in state.model.state_dict().items()}
    theirs = {name: value.shape for name, value in tensors["model"].items()}
    if own != theirs:
        raise UserError(f"checkpoint {where} is of another model; start anew with another --out")
    if (state.average is None) != ("average" not in tensors):
        raise UserError(f"checkpoint {where} was made with another setting of averaging; start anew with another --out")
    state.model.load_state_dict(tensors["model"])
    _restore_optimizer(state, tensors["optimizer"])
    if state.average is not None:
        state.average.updates = int(manifest["average_updates"])
        for name, value in state.average.sums.items():
            value.copy_(tensors["average"][name])


def _optimizer_tensors(state: TrainingState) -> dict[str, Tensor]:
    return {
        f"{name}|{key}": value.detach().cpu().contiguous()
        for name, parameter in state.model.named_parameters()
        for key, value in state.optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _restore_optimizer(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    parameters = dict(state.model.named_parameters())
    for full_name, value in tensors.items():
        name, _, key = full_name.partition("|")
        parameter = parameters[name]
        # Adam's step counter is a float32 scalar; it lives beside its parameter when the update is fused.
        state.optimizer.state[parameter][key] = value.to(parameter.device)


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.is_dir()), reverse=True)
