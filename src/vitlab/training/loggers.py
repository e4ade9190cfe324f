"""Loggers of a run's metrics beside metrics.jsonl: TensorBoard's event files, or Weights & Biases."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitlab.errors import UserError
from vitlab.recipes.schema import Recipe, to_toml

Logger = Callable[[int, Mapping[str, float]], None]  # (step, numbers by name)


@contextmanager
def opened(recipe: Recipe, run: Path, first: int, *, wanted: bool = True) -> Iterator[Logger]:
    """The logger that `recipe.log` names, until the end of the block.

    Args:
        recipe: names the logger, and is shown there.
        run: the run's directory; event files go to its folder `tensorboard`.
        first: the step that the run continues from; what was logged after it is dropped.
        wanted: whether this process is the one that logs.

    Raises:
        UserError: the library is not installed.
    """
    if recipe.log == "none" or not wanted:
        yield to_nowhere
        return
    write, close = (_tensorboard if recipe.log == "tensorboard" else _wandb)(recipe, run, first)
    try:
        yield write
    finally:
        close()


def to_nowhere(step: int, numbers: Mapping[str, float]) -> None:
    """The logger that drops everything."""


def _tensorboard(recipe: Recipe, run: Path, first: int) -> tuple[Logger, Callable[[], None]]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError('log=tensorboard needs TensorBoard: pip install "vitlab[log]"') from None
    writer = SummaryWriter(str(run / "tensorboard"), purge_step=first + 1 if first else None)
    if not first:
        writer.add_text("recipe", f"```toml\n{to_toml(recipe)}```")

    def write(step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    return write, writer.close


def _wandb(recipe: Recipe, run: Path, first: int) -> tuple[Logger, Callable[[], None]]:
    try:
        wandb: Any = importlib.import_module("wandb")
    except ImportError:
        raise UserError("log=wandb needs Weights & Biases: pip install wandb") from None
    name = run.resolve().name
    about = wandb.init(dir=str(run), name=name, id=name, resume="allow", config=recipe.model_dump(mode="json"))

    def write(step: int, numbers: Mapping[str, float]) -> None:
        about.log(dict(numbers), step=step)

    return write, about.finish
