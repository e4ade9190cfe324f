"""Replicas in threads: on a processor a small model learns from several shares of a batch at once, on a core each.

Spreading every single operation over the cores pays for large operations only: those of a small model take tens of
microseconds, and the cores spend most of the time waiting for each other. Replicas wait for each other once per step.
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
from vitlab.recipes.schema import Recipe, ScaleConfig
from vitlab.runtime import Runtime

T = TypeVar("T")
R = TypeVar("R")

MOST_REPLICAS = 4  # more of them would wait for the global interpreter lock
FEWEST_IMAGES = 16  # per replica
LARGEST_MODEL = 1e9  # FLOPs of one image's forward pass; above, spreading operations over the cores is as good


class ThreadReplicas:
    """A model and replicas of it that share its weights but have gradients of their own.

    Args:
        model: what is trained; it draws no random numbers in training.
        count: how many there are, the model itself included.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self.models = (model, *(_replica(model) for _ in range(count - 1)))
        self._threads = max(1, torch.get_num_threads() // count)
        self._pool = ThreadPoolExecutor(count - 1, thread_name_prefix="vitlab-replica")

    @contextmanager
    def on_own_cores(self) -> Iterator[None]:
        """Inside, an operation uses one replica's share of the cores, and no idle thread spins beside it."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def map(self, work: Callable[[nn.Module, Sequence[T]], R], microbatches: Sequence[T]) -> list[R]:
        """`work` on every replica with its share of the microbatches, all at once.

        Afterwards the model has the sum of all gradients, added in the order of the replicas, so that the result does
        not depend on which one finishes first.

        Args:
            work: (model, microbatches) -> anything; leaves gradients in the model's parameters.
            microbatches: a multiple of the number of replicas.
        """
        count = len(self.models)
        share = len(microbatches) // count
        assert share * count == len(microbatches)
        for replica in self.models[1:]:
            replica.zero_grad(set_to_none=True)
        shares = [microbatches[number * share : (number + 1) * share] for number in range(count)]
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
        for replica in self.models[1:]:
            others = [parameter.grad for parameter in replica.parameters() if parameter.grad is not None]
            assert len(own) == len(others)
            if own:
                torch._foreach_add_(own, others)


def _replica(model: nn.Module) -> nn.Module:
    replica = copy.deepcopy(model)
    for parameter, original in zip(replica.parameters(), model.parameters(), strict=True):
        parameter.data = original.data
    return replica


def thread_replicas_of(recipe: Recipe, model: Model, runtime: Runtime) -> int:
    """How many replicas a recipe's steps use.

    For "auto" more than one where it is known to help: in one process on a processor of several cores, for a small
    ViT. A model that draws random numbers in training always has one: which replica draws first would be random.

    Args:
        recipe: its batch size, and `scale.thread_replicas`.
        model: not yet parallelized.
        runtime: device and processes.

    Raises:
        UserError: several replicas are asked for where there can be only one.
    """
    wanted = recipe.scale.thread_replicas
    hindrance = _hindrance(recipe.scale, model, runtime)
    if wanted != "auto":
        if hindrance and wanted > 1:
            raise UserError(f"scale.thread_replicas={wanted}: {hindrance}; leave it out")
        return min(wanted, recipe.batch_size)
    if hindrance or not isinstance(model.config, ViTConfig) or flops(model.config) > LARGEST_MODEL:
        return 1
    return max(1, min(torch.get_num_threads(), MOST_REPLICAS, recipe.batch_size // FEWEST_IMAGES))


def _hindrance(scale: ScaleConfig, model: Model, runtime: Runtime) -> str:
    if runtime.device.type != "cpu":
        return f"replicas in threads are for a processor, and this device is {runtime.device}"
    if runtime.ranks > 1:
        return "replicas in threads are for one process, and there are several"
    if scale.compile != "none" or scale.recompute:
        return "replicas in threads work neither with scale.compile nor with scale.recompute"
    if isinstance(model.config, ViTConfig) and (model.config.dropout or model.config.drop_path):
        return "a model with dropout or stochastic depth can have only one"
    return ""
