"""Everything that a step changes. Order, augmentation and dropout are functions of the step, so this is all."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from vitlab.recipes.schema import Recipe
from vitlab.training.optimizers import PolyakAverage, build_optimizer
from vitlab.training.parallel import Replica, Shard


@dataclass
class Progress:
    """Numbers that a run carries along.

    Attributes:
        evaluated: the last step after which the hooks were called.
        best, best_step: the highest score on held-out images, and the step that reached it; 0 if there is none.
        stale: evaluations since then.
        skipped_images: images that could not be read and were left out.
        skipped_steps: steps of which no image was left.
    """

    evaluated: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    skipped_images: int = 0
    skipped_steps: int = 0

    def as_dict(self) -> dict[str, float | None]:
        """As a JSON value."""
        return asdict(self)

    def restore(self, values: dict[str, float | None]) -> None:
        """Take over the numbers of a checkpoint."""
        for name in asdict(self):
            setattr(self, name, values[name])


@dataclass(frozen=True, eq=False)
class TrainingState:
    """This process's share of the state of a run.

    Attributes:
        weights: live parameters, or shards of them, by name.
        optimizer: of the weights.
        average: of the weights; None if the recipe averages none.
        shards: which rows of the full tensor each weight has; empty if weights are complete.
        progress: the rest.
    """

    weights: dict[str, Tensor]
    optimizer: torch.optim.Optimizer
    average: PolyakAverage | None
    shards: dict[str, Shard] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by kind ("model", "optimizer", "average") and name; live."""
        kinds = {"model": self.weights, "optimizer": dict(self._moments())}
        return kinds if self.average is None else {**kinds, "average": self.average.means}

    def shard(self, name: str, tensor: Tensor) -> Shard | None:
        """Which rows of the full tensor a tensor of `tensors` holds; None if it is complete."""
        # Adam's step counter is a scalar, the same in all processes; what has a weight's shape is sharded like it.
        return self.shards.get(name.partition("|")[0]) if tensor.dim() else None

    def kept_weights(self) -> dict[str, Tensor]:
        """What is evaluated and saved: the average, if there is one."""
        averaged = self.average is not None and self.average.updates > 0
        return self.average.weights() if self.average is not None and averaged else self.weights

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                if isinstance(value, Tensor):
                    yield f"{name}|{key}", value


def start(replica: Replica, recipe: Recipe) -> TrainingState:
    """The state before the first step."""
    average = PolyakAverage(replica.weights, recipe.averaging) if recipe.averaging else None
    optimizer = build_optimizer(replica.weights.values(), recipe.optimizer)
    return TrainingState(replica.weights, optimizer, average, replica.shards)
