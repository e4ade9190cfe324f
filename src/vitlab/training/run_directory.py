"""A run's directory: recipe, environment, metrics, checkpoints, model and results.

recipe.toml  environment.json  metrics.jsonl  checkpoints/step-N/  model/  results/*.json  figures/  report.html
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.errors import UserError
from vitlab.recipes.schema import ELASTIC, Recipe, from_stored_toml, to_toml

RECIPE = "recipe.toml"
ENVIRONMENT = "environment.json"
LOCK = "run.lock"


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run, and its log of numbers."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where `step-N` folders are."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The finished model, loadable by `load_model` anywhere."""
        return self.path / "model"

    @property
    def results(self) -> Path:
        """Where evaluations write their tables as JSON."""
        return self.path / "results"

    def log(self, **numbers: float) -> None:
        """Append one line to metrics.jsonl."""
        with one_line_write_errors(self.path), (self.path / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(numbers) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that a resume from `step` will write again, and an incomplete last one."""
        kept = [line for line in read_metrics(self.path) if line["step"] <= step]
        with one_line_write_errors(self.path):
            files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The complete lines of a run's metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    numbers = []
    for line in lines:
        try:
            numbers.append(json.loads(line))
        except json.JSONDecodeError:
            break  # a crash in the middle of a line; nothing was written after it
    return numbers


@contextmanager
def one_line_write_errors(path: Path) -> Iterator[None]:
    """A disk that is full or cannot be written to becomes a UserError of one line."""
    try:
        yield
    except OSError as error:
        free = ""
        if error.errno == errno.ENOSPC:
            free = f" ({shutil.disk_usage(path).free / 1e6:,.0f} MB are free)"
        raise UserError(
            f"cannot write to {path}: {error.strerror or error}{free}; free some space, or choose another --out"
        ) from None


@contextmanager
def open_run(
    path: Path, recipe: Recipe, *, data: str, environment: dict[str, Any], resume: bool, model: str | None = None
) -> Iterator[RunDirectory]:
    """Make or reopen a run's directory, for this process alone.

    A new directory in which nothing was saved is removed again if the user's mistake ends the run.

    Args:
        path: the directory.
        recipe: the resolved recipe; a resumed run must have the same, except for how it is carried out (`ELASTIC`).
        data: fingerprint of the training set; a resumed run must have the same.
        environment: what the result depends on besides the recipe.
        resume: continue the run that is there; otherwise the directory must be new or empty.
        model: digest of the model to start from, if the recipe does not make or load it.
    """
    if path.exists() and (not path.is_dir() or not _is_run_or_empty(path)):
        raise UserError(f"{path} is in the way: it is not a run directory; choose another --out")
    started = {} if model is None else {"initial_model": model}
    lock = _take_lock(path)
    try:
        fresh = not (path / RECIPE).exists()
        _remove_debris(path)
        if not fresh and not resume:
            raise UserError(f"{path} already holds a run: continue it with --resume, or choose another --out")
        with _removed_if_nothing_was_saved(path) if fresh else nullcontext():
            if fresh:
                with one_line_write_errors(path):
                    files.write_json(path / ENVIRONMENT, {**environment, "data": data, **started})
                    files.write_text(path / RECIPE, to_toml(recipe))
            else:
                _check_same(path, recipe, data, model)
            yield RunDirectory(path)
    finally:
        os.close(lock)


def _is_run_or_empty(path: Path) -> bool:
    """A run, an empty folder, or what a process that was killed left while it created the folder."""
    begun = {LOCK, ENVIRONMENT}
    return (path / RECIPE).exists() or all(entry.name in begun or _is_debris(entry) for entry in path.iterdir())


def _is_debris(entry: Path) -> bool:
    """Whether it is a half-written file or folder of ours; see `vitlab.files`."""
    ours = (ENVIRONMENT, RECIPE, "metrics.jsonl", "model")
    return entry.suffix in (".part", ".old") and entry.name.startswith(tuple(f".{name}." for name in ours))


def _remove_debris(path: Path) -> None:
    for entry in path.iterdir():
        if _is_debris(entry):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _take_lock(path: Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}; choose another --out") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise UserError(f"{path} is in use by another process: wait for it to end, or choose another --out") from None
    return lock


@contextmanager
def _removed_if_nothing_was_saved(path: Path) -> Iterator[None]:
    """A user's mistake that is found only when training begins leaves no run behind, unless something was saved."""
    try:
        yield
    except UserError:
        if not any((path / "checkpoints").glob("step-*")) and not (path / "model").exists():
            shutil.rmtree(path, ignore_errors=True)
        raise


def _check_same(path: Path, recipe: Recipe, data: str, model: str | None) -> None:
    stored = from_stored_toml((path / RECIPE).read_text(encoding="utf-8"), str(path / RECIPE))
    changed = _first_difference(stored.model_dump(), recipe.model_dump(), "")
    if changed:
        raise UserError(f"cannot resume {path}: {changed}; use the same recipe, or another --out")
    stored_environment = json.loads((path / ENVIRONMENT).read_text(encoding="utf-8"))
    if stored_environment.get("initial_model") != model:
        raise UserError(f"cannot resume {path}: it started from another model; give the same one, or another --out")
    if stored_environment.get("data") != data:
        raise UserError(f"cannot resume {path}: the training images changed since it began; use another --out")


def _first_difference(stored: dict[str, Any], given: dict[str, Any], prefix: str) -> str:
    for key in sorted(stored.keys() | given.keys()):
        before, now = stored.get(key), given.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = _first_difference(before, now, f"{prefix}{key}.")
            if inner:
                return inner
        elif before != now and f"{prefix}{key}" not in ELASTIC:
            return f"{prefix}{key} was {before!r} and is {now!r} now"
    return ""
