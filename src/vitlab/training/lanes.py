"""Side by side: on a processor a small model learns from several shares of a batch at once, each on its own cores.

Spreading every single operation over the cores pays for large operations only: a small model's last tens of
microseconds, and the cores spend most of their time waiting for each other. Lanes wait once a step.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.recipes.configs import ViTConfig
from vitlab.recipes.cost import flops
from vitlab.recipes.scale import ScaleConfig
from vitlab.recipes.schema import Recipe
from vitlab.runtime import Runtime

P = TypeVar("P")
R = TypeVar("R")

MOST_LANES = 4  # more of them would wait for Python's lock
FEWEST_IMAGES = 16  # of a lane
LARGEST_MODEL = 1e9  # floating-point operations of one image's forward pass; above, spreading operations is as good


class Lanes:
    """A model and twins of it that have the same weights, not copies of them, but gradients of their own.

    Args:
        model: what is trained; it draws no random numbers in training.
        count: how many there are, the model itself included.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self.models = (model, *(_twin(model) for _ in range(count - 1)))
        self._threads = max(1, torch.get_num_threads() // count)
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="vitlab-lane")

    @contextmanager
    def on_own_cores(self) -> Iterator[None]:
        """Inside, an operation takes a lane's share of the cores, and no thread of another one spins beside it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def run(self, work: Callable[[nn.Module, Sequence[P]], R], parts: Sequence[P]) -> list[R]:
        """`work` on every model with its share of the parts, all at once; the model has the sum of their gradients.

        Sums are in the order of the lanes, so that the result does not depend on who is done first.

        Args:
            work: (model, parts) -> whatever; leaves gradients in the model's parameters.
            parts: a multiple of the number of lanes.
        """
        lanes = len(self.models)
        share = len(parts) // lanes
        assert share * lanes == len(parts)
        for twin in self.models[1:]:
            twin.zero_grad(set_to_none=True)
        shares = [parts[lane * share : (lane + 1) * share] for lane in range(lanes)]
        others = [self._pool.submit(work, *given) for given in zip(self.models[1:], shares[1:], strict=True)]
        try:
            first = work(self.models[0], shares[0])
        finally:
            wait(others)
        results = [first, *(other.result() for other in others)]
        self._add_gradients()
        return results

    @torch.no_grad()
    def _add_gradients(self) -> None:
        own = [parameter.grad for parameter in self.models[0].parameters() if parameter.grad is not None]
        for twin in self.models[1:]:
            others = [parameter.grad for parameter in twin.parameters() if parameter.grad is not None]
            assert len(own) == len(others)
            if own:
                torch._foreach_add_(own, others)


def _twin(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    for parameter, original in zip(twin.parameters(), model.parameters(), strict=True):
        parameter.data = original.data
    return twin


def lanes_of(recipe: Recipe, model: Model, runtime: Runtime) -> int:
    """How many lanes the steps of a recipe go in.

    For "auto" more than one where it is known to help: in one process on a processor of several cores, for a small
    ViT. A model that draws random numbers in training has one lane always: who draws first would be left to chance.

    Args:
        recipe: its batch, and what it says of lanes.
        model: not yet spread.
        runtime: device and processes.

    Raises:
        UserError: several lanes are asked for where there can be one only.
    """
    wanted = recipe.scale.lanes
    hindrance = _hindrance(recipe.scale, model, runtime)
    if wanted != "auto":
        if hindrance and wanted > 1:
            raise UserError(f"scale.lanes={wanted}: {hindrance}; leave it out")
        return min(wanted, recipe.batch_size)
    if hindrance or not isinstance(model.config, ViTConfig) or flops(model.config) > LARGEST_MODEL:
        return 1
    return max(1, min(torch.get_num_threads(), MOST_LANES, recipe.batch_size // FEWEST_IMAGES))


def _hindrance(scale: ScaleConfig, model: Model, runtime: Runtime) -> str:
    if runtime.device.type != "cpu":
        return f"lanes are for a processor, and this is {runtime.device}"
    if runtime.ranks > 1:
        return "lanes are for one process, and there are several"
    if scale.compile != "none" or scale.recompute:
        return "lanes go neither with scale.compile nor with scale.recompute"
    if isinstance(model.config, ViTConfig) and (model.config.dropout or model.config.drop_path):
        return "dropout and stochastic depth are drawn in one lane only"
    return ""
