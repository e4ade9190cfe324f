"""A model parallelized over processes, compiled, recomputed, in lower precision: all without changing the model's code.

DDP keeps the complete model in every process and averages gradients; FSDP2 shards every weight along its first
dimension, gives each process one shard, and gathers a block while it computes. Everything after the backward pass
(optimizer, averaging, checkpoints) sees plain tensors: a process's own weights, or its own shards.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.models.resnet import ResNet, Unit
from vitlab.recipes.schema import ScaleConfig
from vitlab.runtime import Runtime, all_reduce_on_device
from vitlab.training.thread_replicas import ThreadReplicas

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Shard:
    """Which rows of a full tensor a process has."""

    first: int
    rows_of_full: int


@dataclass(frozen=True, eq=False)
class Replica:
    """This process's share of a model in training.

    Attributes:
        model: what is called, forward and backward.
        weights: parameters, or shards of them, by their names in the model; live.
        shards: which rows each weight has; empty if weights are complete.
        full: the plain model, which is evaluated and saved; None if another process has it.
        threads: replicas of the model in threads of this process; None if there is only one.
    """

    model: nn.Module
    weights: dict[str, Tensor]
    shards: dict[str, Shard]
    full: Model | None
    threads: ThreadReplicas | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are divided among the processes."""
        return bool(self.shards)

    @property
    def map(self) -> Callable[[Callable[[nn.Module, Sequence[T]], R], Sequence[T]], list[R]]:
        """(work, microbatches) -> what `work` returns on every model of this process, see `ThreadReplicas.map`."""
        return self.threads.map if self.threads else lambda work, microbatches: [work(self.model, microbatches)]

    def on_own_cores(self) -> AbstractContextManager[None]:
        """The context of an update, see `ThreadReplicas.on_own_cores`."""
        return self.threads.on_own_cores() if self.threads else nullcontext()


def blocks_of(model: Model) -> list[nn.Module]:
    """The repeated blocks that compiling, recomputing and sharding take one by one."""
    if isinstance(model, ResNet):
        return [module for module in model.stages.modules() if isinstance(module, Unit)]
    return list(model.blocks)


def parallelize(model: Model, scale: ScaleConfig, runtime: Runtime, threads: int = 1) -> Replica:
    """This process's share of `model`, as `scale` says.

    Args:
        model: on the runtime's device, the same in all processes; it may be changed in place.
        scale: what to apply.
        runtime: the processes.
        threads: replicas in threads of this process, see `thread_replicas_of`; 1 in a run of several processes.

    Raises:
        UserError: several processes for a recipe that forbids them, or fp8 where it is not available.
    """
    assert not list(model.buffers()), "buffers are not in checkpoints"
    way = chosen_way(model, scale, runtime)
    if scale.precision == "fp8":
        _to_fp8(model, runtime)
    # The full copy stays on the host until it is evaluated: the device has room for shards only.
    full = copy.deepcopy(model).to("cpu") if way == "fsdp" and runtime.is_first else None
    _recompute_and_compile(model, scale)
    if way == "fsdp":
        shards = _shard(model, runtime)
        with torch.no_grad():
            weights = {name: _local(value).requires_grad_() for name, value in model.named_parameters()}
        return Replica(model, weights, shards, full)
    called = _with_ddp(model, runtime) if way == "ddp" else model
    assert threads == 1 or way == "none"
    weights = dict(model.named_parameters())
    return Replica(called, weights, {}, model, ThreadReplicas(model, threads) if threads > 1 else None)


def _with_ddp(model: Model, runtime: Runtime) -> nn.Module:
    ids = [runtime.device.index] if runtime.device.type == "cuda" else None
    ddp = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    _settle(ddp, model, runtime)
    return ddp


def chosen_way(model: Model, scale: ScaleConfig, runtime: Runtime) -> str:
    """What "auto" is: ddp where weights, gradients and Adam's moments fill at most half a GPU, else fsdp."""
    if runtime.ranks == 1:
        return "none"
    if scale.parallel == "none":
        raise UserError(f"scale.parallel=none is for one process, and there are {runtime.ranks}; set ddp or fsdp")
    if scale.parallel != "auto":
        return scale.parallel
    if runtime.device.type != "cuda":
        return "ddp"
    held = 16 * sum(parameter.numel() for parameter in model.parameters())
    return "ddp" if held <= torch.cuda.get_device_properties(runtime.device).total_memory / 2 else "fsdp"


def _recompute_and_compile(model: Model, scale: ScaleConfig) -> None:
    for block in blocks_of(model):
        if scale.recompute:
            # Assigned, not wrapped: the names of the parameters stay as they are.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if scale.compile == "blocks":
            block.compile()
    if scale.compile == "step":
        model.compile()


def _to_fp8(model: Model, runtime: Runtime) -> None:
    try:
        from torchao.float8 import convert_to_float8_training
    except ImportError:
        raise UserError('scale.precision=fp8 needs torchao: pip install "vitlab[lowbit]"') from None
    if runtime.device.type != "cuda" or torch.cuda.get_device_capability(runtime.device) < (8, 9):
        raise UserError("scale.precision=fp8 needs a GPU with fp8 (H100 or newer); set scale.precision=bfloat16")

    def wanted(module: nn.Module, name: str) -> bool:
        # The kernels need multiples of 16, and the head is small and sensitive to rounding.
        if not (isinstance(module, nn.Linear) and name.startswith("blocks.")):
            return False
        return not (module.in_features % 16 or module.out_features % 16)

    convert_to_float8_training(model, module_filter_fn=wanted)


def _shard(model: Model, runtime: Runtime) -> dict[str, Shard]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    rows = {name: value.shape[0] for name, value in model.named_parameters()}
    mesh = init_device_mesh(runtime.device.type, (runtime.ranks,))
    half = runtime.compute if runtime.compute != torch.float32 else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32 if half else None)
    # The logits are a view in some models; nobody changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    for module in [*blocks_of(model), model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return {name: _rows_of(count, runtime) for name, count in rows.items()}


def _rows_of(rows: int, runtime: Runtime) -> Shard:
    """Shards have ceil(rows / ranks) rows; the last ones may be smaller or empty."""
    return Shard(min(rows, runtime.rank * -(-rows // runtime.ranks)), rows)


def _local(value: Any) -> Tensor:
    local: Tensor = value.to_local()
    return local.detach()


def _settle(ddp: nn.Module, model: Model, runtime: Runtime) -> None:
    """One empty pass: a run that was resumed then sums gradients in the same order as one that was not.

    DDP reorders its gradient buckets after the first backward pass, and sums in another order from then on.
    """
    height, width = model.config.image_hw
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), runtime.autocast():
        # The class token's gradient has another layout than its bucket: one tiny copy, of which DDP warns once.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        ddp(torch.zeros(1, 3, height, width, device=runtime.device)).sum().backward()
    ddp.zero_grad(set_to_none=True)


def gradient_sync(replica: Replica, last: bool) -> AbstractContextManager[None]:
    """The context of one microbatch: gradients are exchanged after the last one only."""
    if isinstance(replica.model, DistributedDataParallel) and not last:
        return replica.model.no_sync()
    if replica.is_sharded:
        replica.model.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def collect_gradients(replica: Replica) -> list[Tensor]:
    """Put every weight's gradient into `.grad`, shards too; returns the gradients that exist."""
    if replica.is_sharded:
        for name, parameter in replica.model.named_parameters():
            replica.weights[name].grad = _local(parameter.grad) if parameter.grad is not None else None
            parameter.grad = None
    return [value.grad for value in replica.weights.values() if value.grad is not None]


def global_norm(replica: Replica, gradients: list[Tensor], runtime: Runtime) -> Tensor:
    """The 2-norm of all gradients, including the shards of other processes."""
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    return all_reduce_on_device(runtime, norm.square()).sqrt() if replica.is_sharded else norm


@contextmanager
def full_model(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> Iterator[Model | None]:
    """Inside, the plain model with `values` as its weights, in the process that has one; all processes must call this.

    After, a model in training has its own weights again, bit for bit.
    """
    if replica.is_sharded:
        _gather(replica, values, runtime)
        yield replica.full
        return
    if values is replica.weights:
        yield replica.full
        return
    own = {name: value.detach().clone() for name, value in replica.weights.items()}
    try:
        copy_into(values, replica.weights)
        yield replica.full
    finally:
        copy_into(own, replica.weights)


def gather_into_model(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> Model | None:
    """The plain model has `values` as its weights from now on."""
    if replica.is_sharded:
        _gather(replica, values, runtime)
    else:
        copy_into(values, replica.weights)
    return replica.full


@torch.no_grad()
def _gather(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> None:
    targets = dict(replica.full.named_parameters()) if replica.full is not None else {}
    for name, shard in replica.shards.items():
        value = values[name]
        most = -(-shard.rows_of_full // runtime.ranks)
        padded = value.new_zeros(most, *value.shape[1:])
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in range(runtime.ranks)]
        dist.all_gather(parts, padded)
        if name in targets:
            targets[name].copy_(torch.cat(parts)[: shard.rows_of_full])


@torch.no_grad()
def copy_into(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Overwrite weights by others of the same names."""
    for name, weight in weights.items():
        weight.copy_(values[name])
