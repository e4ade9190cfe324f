"""The files of `vitlab vtab`: the settings of the run (vtab.json), and each task's result (TASK/result.json)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vitlab import files
from vitlab.errors import UserError
from vitlab.recipes.vtab import VtabTask

RESULT = "result.json"
SETTINGS = "vtab.json"


@dataclass(frozen=True)
class Settings:
    """What all tasks of a VTAB run have in common; a folder belongs to one of these.

    Attributes:
        model: where the weights come from; they may have moved since a folder was begun.
        linear: least squares on frozen features instead of fine-tuning.
        rates: learning rates to choose among; a single one is used without choosing.
        assignments: changes to the recipes `vtab/TASK`, as `key.path=value`.
        weights: fingerprint of the model, wherever it lies; see `vtab.identified`.
    """

    model: str
    linear: bool = False
    rates: tuple[float, ...] = (0.01,)
    assignments: tuple[str, ...] = ()
    weights: str = ""


@dataclass(frozen=True)
class Trial:
    """One value that was tried, and its accuracy on the 200 validation images."""

    value: float
    validation: float


@dataclass(frozen=True)
class TaskResult:
    """One task's result.

    Attributes:
        task: its name.
        right, images: correct and all images of the test set.
        chosen: the learning rate or penalty of the final training.
        trials: what it was chosen among; empty if nothing was chosen.
        tuning_steps: updates of all trials together.
        final_steps: updates of the final training; 0 for least squares.
        train, test: fingerprints of the images.
    """

    task: str
    right: int
    images: int
    chosen: float
    trials: tuple[Trial, ...]
    tuning_steps: int
    final_steps: int
    train: str
    test: str

    @property
    def accuracy(self) -> float:
        """Top-1 on the test set."""
        return self.right / self.images


def open_folder(out: Path, settings: Settings) -> None:
    """Claim a folder for these settings, or find that it is theirs.

    Raises:
        UserError: it belongs to other settings, or cannot be written to.
    """
    wanted = json.loads(json.dumps(asdict(settings)))
    path = out / SETTINGS
    if path.exists():
        _check_same(out, _read(path), wanted)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is in the way: it is not a VTAB run; choose another --out")
    try:
        files.write_json(path, wanted)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from None


def _check_same(out: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in wanted:
        if key not in ("model", "weights") and found.get(key) != wanted[key]:
            raise UserError(f"{out} holds a VTAB run with another {key}; use the same, or another --out")
    if "weights" not in found:
        raise UserError(f"{out} holds a VTAB run that does not record its weights; choose another --out")
    if found["weights"] != wanted["weights"]:
        raise UserError(
            f"{out} holds a VTAB run with other weights than {wanted['model']} has now; "
            "use those that it began with, or another --out"
        )


@contextmanager
def released_if_empty(out: Path) -> Iterator[None]:
    """A user's mistake that is found before anything was done leaves no folder behind."""
    try:
        yield
    except UserError:
        if [path.name for path in out.iterdir()] == [SETTINGS]:
            (out / SETTINGS).unlink()
            out.rmdir()
        raise


def finished(out: Path, task: VtabTask) -> TaskResult | None:
    """A task's result from an earlier run; None if there is none yet.

    Raises:
        UserError: its file is damaged.
    """
    path = out / task.name / RESULT
    if not path.exists():
        return None
    values = _read(path)
    try:
        trials = tuple(Trial(**trial) for trial in values.pop("trials"))
        return TaskResult(**values, trials=trials)
    except (TypeError, KeyError):
        raise UserError(f"{path}: this is not a VTAB result; remove it to run the task again") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > 2**20:
            raise UserError(f"{path} is too large for a file of VTAB; remove it")
        found = json.loads(path.read_text("utf-8"))
    except UserError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}); remove it") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is not what vitlab wrote there; remove it")
    return found
