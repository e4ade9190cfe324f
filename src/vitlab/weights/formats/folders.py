"""Folders that hold a model: made whole or not at all, never in place of something else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitlab.errors import UserError
from vitlab.files import folder_aside

OURS = {"config.json", "model.safetensors", "preprocessor_config.json"}


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that becomes `path`.

    Raises:
        UserError: `path` is a file, or a folder that holds more than a model: it would be lost.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file, the model needs a folder; give a new name")
    if path.is_dir():
        others = sorted(entry.name for entry in path.iterdir() if entry.name not in OURS)
        if others:
            raise UserError(f"{path}: holds '{others[0]}' and would be replaced; give a new or empty folder")
    with folder_aside(path.resolve()) as folder:
        yield folder
