"""Checkpoints of a run's state: what is saved comes back bit for bit, on any number of processes.

They are written in a thread of its own, so that training waits only for the copy to the host. Loading takes the newest
checkpoint whose hashes are right and says which ones it passed over.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from vitlab import files
from vitlab.errors import UserError
from vitlab.runtime import Runtime, all_reduce_sum
from vitlab.training import checkpoint_files as disk
from vitlab.training.state import TrainingState

log = logging.getLogger(__name__)
Snapshot = dict[str, dict[str, Tensor]]


def snapshot(state: TrainingState, rank: int, room: Snapshot) -> Snapshot:
    """A copy on the host of what this process has to write: training may continue while it is written.

    Args:
        state: of this process.
        rank: the first process writes what is the same in all; each shard is written by the process that has it.
        room: an earlier snapshot that is written already; its memory is used again if the device is a GPU.
    """
    taken: Snapshot = {}
    for kind, tensors in state.tensors().items():
        own = {name: value for name, value in tensors.items() if _is_mine(state, name, value, rank)}
        taken[kind] = {name: _on_host(value, room.get(kind, {}).get(name)) for name, value in own.items()}
    if any(value.is_cuda for value in state.weights.values()):
        torch.cuda.current_stream().synchronize()
    return taken


def _is_mine(state: TrainingState, name: str, value: Tensor, rank: int) -> bool:
    return rank == 0 if state.shard(name, value) is None else value.numel() > 0


def _on_host(value: Tensor, room: Tensor | None) -> Tensor:
    value = value.detach()
    if not value.is_cuda:
        return value.to("cpu", copy=True).contiguous()
    if room is None:
        room = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
    return room.copy_(value, non_blocking=True)


def write_share(
    checkpoints: Path, step: int, taken: Snapshot, state: TrainingState, runtime: Runtime
) -> dict[str, Any]:
    """Write this process's files of a checkpoint into a temporary folder; returns their entries for the manifest."""
    aside = disk.aside_of(checkpoints, step)
    aside.mkdir(parents=True, exist_ok=True)
    suffix = f"-{runtime.rank + 1:05d}-of-{runtime.ranks:05d}" if state.shards else ""
    entries = {}
    for kind, tensors in taken.items():
        if tensors:
            entry = disk.write_tensors(aside / f"{kind}{suffix}.safetensors", tensors)
            found = {name: state.shard(name, value) for name, value in tensors.items()}
            shards = {name: [shard.first, shard.rows_of_full] for name, shard in found.items() if shard is not None}
            entries[f"{kind}{suffix}.safetensors"] = {"kind": kind, **entry, "pieces": shards}
    if state.shards:
        files.write_json(aside / f"files{suffix}.json", entries)
    return entries


def collected(checkpoints: Path, step: int) -> dict[str, Any]:
    """The entries of all processes' files, once all have written theirs."""
    entries: dict[str, Any] = {}
    for path in sorted(disk.aside_of(checkpoints, step).glob("files-*.json")):
        entries |= json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
    return entries


def manifest(step: int, state: TrainingState, ranks: int) -> dict[str, Any]:
    """What a checkpoint's manifest says beside its files; taken at the same time as the snapshot."""
    updates = state.average.updates if state.average is not None else 0
    progress = state.progress.as_dict()
    return {"version": disk.VERSION, "step": step, "ranks": ranks, "average_updates": updates, "progress": progress}


def load_newest(checkpoints: Path, state: TrainingState, runtime: Runtime) -> int:
    """Set `state` to the newest readable checkpoint; returns its step, 0 if there is none.

    All processes must call this, and load the same one.

    Raises:
        UserError: there are checkpoints and none of them is readable, or one is of another version, model or averaging.
    """
    candidates = disk.newest_first(checkpoints)
    for candidate in candidates:
        about = _readable(candidate, runtime)
        if about is not None:
            restore(candidate, about, state)
            if about["ranks"] != runtime.ranks and runtime.is_first:
                log.warning(
                    "%d processes continue a checkpoint of %d: samples are the same, and weights equal up to rounding",
                    runtime.ranks, about["ranks"],
                )  # fmt: skip
            return int(about["step"])
    if candidates:
        raise UserError(f"no checkpoint in {checkpoints} is readable; start again with another --out")
    return 0


def load_step(checkpoints: Path, step: int, state: TrainingState) -> None:
    """Set `state` to the checkpoint of a step, which must exist and be complete."""
    folder = disk.folder_of(checkpoints, step)
    try:
        restore(folder, disk.read_manifest(folder), state)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"the best checkpoint, {folder}, is not readable ({error})") from None


def _readable(folder: Path, runtime: Runtime) -> dict[str, Any] | None:
    """The manifest, if all files have their hashes; each process reads a share of them."""
    about, problem = None, ""
    try:
        about = disk.read_manifest(folder)
        for name in sorted(about["files"])[runtime.rank :: runtime.ranks]:
            disk.check_file(folder / Path(name).name, about["files"][name])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error)
        log.warning("checkpoint %s is not readable (%s); trying the previous one", folder.name, problem)
    [problems] = all_reduce_sum(runtime, [bool(problem)])
    return about if not problems else None


def restore(folder: Path, about: Mapping[str, Any], state: TrainingState) -> None:
    """Overwrite `state` with a checkpoint.

    Raises:
        UserError: it is of another model, or of another setting of averaging.
    """
    kinds = {entry["kind"] for entry in about["files"].values()}
    stored = {kind: disk.StoredTensors(folder, kind, about["files"]) for kind in kinds}
    own = {name: _full_shape(state, name, value) for name, value in state.weights.items()}
    if own != stored["model"].shapes:
        raise UserError(f"checkpoint {folder} is of another model; start again with another --out")
    if (state.average is None) != ("average" not in kinds):
        raise UserError(f"checkpoint {folder} has another setting of averaging; start again with another --out")
    with torch.no_grad():
        for name, weight in state.weights.items():
            weight.copy_(_rows(stored["model"], name, state, weight))
        _restore_optimizer(state, stored.get("optimizer"))
        if state.average is not None:
            state.average.updates = int(about["average_updates"])
            for name, value in state.average.means.items():
                value.copy_(_rows(stored["average"], name, state, value))
    state.progress.restore(about["progress"])


def _full_shape(state: TrainingState, name: str, value: Tensor) -> tuple[int, ...]:
    shard = state.shard(name, value)
    return tuple(value.shape) if shard is None else (shard.rows_of_full, *value.shape[1:])


def _rows(stored: disk.StoredTensors, name: str, state: TrainingState, like: Tensor) -> Tensor:
    """This process's rows of a stored tensor that has the shape of the weight `like`."""
    shard = state.shard(name, like)
    rows = like.shape[0] if like.dim() else 0
    if shard is not None and not rows:
        return torch.empty_like(like)
    return stored.read(name, shard.first if shard else 0, rows)


def _restore_optimizer(state: TrainingState, stored: disk.StoredTensors | None) -> None:
    for weight in state.weights.values():
        state.optimizer.state.pop(weight, None)
    if stored is None:
        return
    for full_name, shape in stored.shapes.items():
        name, _, key = full_name.partition("|")
        weight = state.weights[name]
        value = _rows(stored, full_name, state, weight) if shape else stored.read(full_name, 0, 0)
        # Adam's step counter is a float32 scalar; it lives beside its parameter when the update is fused.
        state.optimizer.state[weight][key] = value.to(weight.device)


class CheckpointWriter:
    """Writes one checkpoint at a time.

    Weights that are sharded are written in two phases: each process writes its files aside, and when all have
    finished, the first one writes the manifest and moves the folder into place.

    Args:
        checkpoints: where they go.
        state: what is saved, as it is when `begin` is called.
        runtime: the processes.
        keep: how many of the newest are kept, beside the best.
    """

    def __init__(self, checkpoints: Path, state: TrainingState, runtime: Runtime, keep: int) -> None:
        self.newest = 0
        self._checkpoints, self._state, self._runtime, self._keep = checkpoints, state, runtime, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vitlab-checkpoint")
        self._room: Snapshot = {}
        self._writing: Future[None] | None = None
        self._awaiting_others: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written by this process."""
        return self._writing is None or self._writing.done()

    @property
    def awaits_others(self) -> bool:
        """Whether the newest checkpoint still has to be moved into place, once all processes have finished writing."""
        return self._awaiting_others is not None

    def begin(self, step: int) -> None:
        """Copy the state after `step` updates, and write it meanwhile."""
        assert self.is_idle
        assert not self.awaits_others
        self.newest = step
        self._room = taken = snapshot(self._state, self._runtime.rank, self._room)
        about = manifest(step, self._state, self._runtime.ranks)
        self._writing = self._thread.submit(self._write, step, taken, about)
        if self._state.shards:
            self._awaiting_others = lambda: self._move_into_place(step, {**about, "files": None})

    def all_are_idle(self) -> None:
        """To be called in every process once `is_idle` was true in all of them."""
        move, self._awaiting_others = self._awaiting_others, None
        if move is not None and self._runtime.is_first:
            self._writing = self._thread.submit(self._explained, move)

    def problem(self) -> str:
        """Why the last checkpoint could not be written, returned once; empty if it could."""
        if self._writing is None or not self._writing.done():
            return ""
        error, self._writing = self._writing.exception(), None
        if error is not None and not isinstance(error, OSError):
            raise error
        return str(error) if error is not None else ""

    def wait(self) -> None:
        """Until nothing is being written by this process."""
        if self._writing is not None:
            self._writing.exception()

    def _write(self, step: int, taken: Snapshot, about: dict[str, Any]) -> None:
        if any(taken.values()):
            self._explained(lambda: self._write_and_keep(step, taken, about))

    def _write_and_keep(self, step: int, taken: Snapshot, about: dict[str, Any]) -> None:
        try:
            entries = write_share(self._checkpoints, step, taken, self._state, self._runtime)
            if not self._state.shards:
                self._move_into_place(step, {**about, "files": entries})
        except OSError:
            shutil.rmtree(disk.aside_of(self._checkpoints, step), ignore_errors=True)
            raise

    def _move_into_place(self, step: int, about: dict[str, Any]) -> None:
        if about["files"] is None:
            about = {**about, "files": collected(self._checkpoints, step)}
        disk.commit(self._checkpoints, step, about)
        disk.drop_old(self._checkpoints, self._keep, [about["progress"]["best_step"]])

    def _explained(self, work: Callable[[], None]) -> None:
        """Do it, and explain a failure so that a person can fix it."""
        try:
            work()
        except OSError as error:
            raise OSError(self._message(error)) from error

    def _message(self, error: OSError) -> str:
        try:
            free = f"{shutil.disk_usage(self._checkpoints).free / 1e6:,.0f} MB are free"
        except OSError:
            free = "its disk does not respond"
        return (
            f"cannot write a checkpoint to {self._checkpoints}: {error.strerror or error}; {free}; the checkpoints "
            "before it are intact: free some space and continue with --resume"
        )
