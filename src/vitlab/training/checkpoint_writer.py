"""Writes checkpoints in a thread of its own; training waits only for the copy to the host."""

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vitlab.runtime import Runtime
from vitlab.training import checkpoint_files as disk
from vitlab.training.checkpoint import Snapshot, collected, manifest, snapshot, write_share
from vitlab.training.state import TrainingState


class CheckpointWriter:
    """Writes one checkpoint at a time.

    Weights that are sharded are written in two phases: each process writes its files aside, and when all have
    finished, the first one writes the manifest and moves the folder into place.

    Args:
        checkpoints: where they go.
        state: what is saved, in its state when `begin` is called.
        runtime: the processes.
        keep: how many of the newest are kept, besides the best.
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
        """Whether this process is writing nothing."""
        return self._writing is None or self._writing.done()

    @property
    def awaits_others(self) -> bool:
        """Whether the newest checkpoint still has to be moved into place, once all processes have finished writing."""
        return self._awaiting_others is not None

    def begin(self, step: int) -> None:
        """Copy the state after `step` updates, and write it in the background."""
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
        """Wait until this process is writing nothing."""
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
        """Do the work; an OSError says how to fix it."""
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
