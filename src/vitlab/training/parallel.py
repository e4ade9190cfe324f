"""A model spread over processes, compiled, recomputed, in fewer bits: all from outside the model.

DDP keeps the whole model in every process and averages gradients; FSDP2 cuts every weight along its first dimension,
gives each process one piece, and brings a block together while it is at work. Everything after the backward pass
(optimizer, averaging, checkpoints) sees plain tensors: a process's own weights, or its own pieces.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from vitlab.errors import UserError
from vitlab.models.build import Model
from vitlab.models.resnet import ResNet, Unit
from vitlab.recipes.scale import ScaleConfig
from vitlab.runtime import Runtime, all_reduce_on_device
from vitlab.training.lanes import Lanes


@dataclass(frozen=True)
class Piece:
    """Which rows of a whole tensor a process has."""

    first: int
    rows_of_whole: int


@dataclass(frozen=True, eq=False)
class Replica:
    """This process's share of a model in training.

    Attributes:
        model: what is called, forward and backward.
        weights: parameters, or pieces of them, by their names in the model; live.
        pieces: which rows each weight is of; none where weights are whole.
        whole: the plain model, that is evaluated and saved; none where another process has it.
        lanes: what learns side by side in this process; none where one after the other.
    """

    model: nn.Module
    weights: dict[str, Tensor]
    pieces: dict[str, Piece]
    whole: Model | None
    lanes: Lanes | None = None

    @property
    def is_cut(self) -> bool:
        """Whether the weights are spread over the processes."""
        return bool(self.pieces)


def blocks_of(model: Model) -> list[nn.Module]:
    """The repeated pieces that compiling, recomputing and sharding take one by one."""
    if isinstance(model, ResNet):
        return [module for module in model.stages.modules() if isinstance(module, Unit)]
    return list(model.blocks)


def spread(model: Model, scale: ScaleConfig, runtime: Runtime, lanes: int = 1) -> Replica:
    """This process's share of `model`, as `scale` says.

    Args:
        model: on the runtime's device, the same in all processes; it may be changed in place.
        scale: what to apply.
        runtime: the processes.
        lanes: shares of a batch that are learned from side by side, see `lanes_of`; 1 in a run of several processes.

    Raises:
        UserError: several processes for a recipe that forbids them, or fp8 where there is none.
    """
    assert not list(model.buffers()), "buffers are not in checkpoints"
    way = chosen_way(model, scale, runtime)
    if scale.precision == "fp8":
        _to_fp8(model, runtime)
    # The whole copy stays on the host until it is evaluated: the device has room for pieces alone.
    whole = copy.deepcopy(model).to("cpu") if way == "fsdp" and runtime.is_first else None
    _recompute_and_compile(model, scale)
    if way == "fsdp":
        pieces = _cut(model, runtime)
        with torch.no_grad():
            weights = {name: _local(value).requires_grad_() for name, value in model.named_parameters()}
        return Replica(model, weights, pieces, whole)
    called: nn.Module = model
    if way == "ddp":
        ids = [runtime.device.index] if runtime.device.type == "cuda" else None
        called = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
        _settle(called, model, runtime)
    assert lanes == 1 or way == "none"
    return Replica(called, dict(model.named_parameters()), {}, model, Lanes(model, lanes) if lanes > 1 else None)


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
        # The kernels want multiples of 16, and the head is small and delicate.
        return isinstance(module, nn.Linear) and name.startswith("blocks.") and not _odd(module)

    convert_to_float8_training(model, module_filter_fn=wanted)


def _odd(linear: nn.Linear) -> bool:
    return bool(linear.in_features % 16 or linear.out_features % 16)


def _cut(model: Model, runtime: Runtime) -> dict[str, Piece]:
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
    return {name: _piece(count, runtime) for name, count in rows.items()}


def _piece(rows: int, runtime: Runtime) -> Piece:
    """Pieces are of ceil(rows / ranks) rows; the last ones may be smaller or empty."""
    return Piece(min(rows, runtime.rank * -(-rows // runtime.ranks)), rows)


def _local(value: Any) -> Tensor:
    local: Tensor = value.to_local()
    return local.detach()


def _settle(ddp: nn.Module, model: Model, runtime: Runtime) -> None:
    """One empty pass: a run that was resumed then sums gradients in the same order as one that was not.

    DDP orders them anew after its first backward pass, and adds up in another order from then on.
    """
    height, width = model.config.image_hw
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), runtime.autocast():
        # The class token's gradient comes with another layout than its bucket: one tiny copy, told once.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        ddp(torch.zeros(1, 3, height, width, device=runtime.device)).sum().backward()
    ddp.zero_grad(set_to_none=True)


def without_exchange(replica: Replica, last: bool) -> AbstractContextManager[None]:
    """The context of one part of a batch: gradients travel after the last part only."""
    if isinstance(replica.model, DistributedDataParallel) and not last:
        return replica.model.no_sync()
    if replica.is_cut:
        replica.model.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def collect_gradients(replica: Replica) -> list[Tensor]:
    """Every weight has its gradient in `.grad` after this, pieces too; the list holds those there are."""
    if replica.is_cut:
        for name, parameter in replica.model.named_parameters():
            replica.weights[name].grad = _local(parameter.grad) if parameter.grad is not None else None
            parameter.grad = None
    return [value.grad for value in replica.weights.values() if value.grad is not None]


def global_norm(replica: Replica, gradients: list[Tensor], runtime: Runtime) -> Tensor:
    """The 2-norm of all gradients together, wherever their pieces are."""
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
    return all_reduce_on_device(runtime, norm.square()).sqrt() if replica.is_cut else norm


@contextmanager
def whole_model(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> Iterator[Model | None]:
    """Inside, the plain model with `values` as its weights, where there is one; all processes must take part.

    After, a model in training has its own weights again, bit for bit.
    """
    if replica.is_cut:
        _gather(replica, values, runtime)
        yield replica.whole
        return
    if values is replica.weights:
        yield replica.whole
        return
    own = {name: value.detach().clone() for name, value in replica.weights.items()}
    try:
        copy_into(values, replica.weights)
        yield replica.whole
    finally:
        copy_into(own, replica.weights)


def give_whole(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> Model | None:
    """The plain model has `values` as its weights from now on."""
    if replica.is_cut:
        _gather(replica, values, runtime)
    else:
        copy_into(values, replica.weights)
    return replica.whole


@torch.no_grad()
def _gather(replica: Replica, values: Mapping[str, Tensor], runtime: Runtime) -> None:
    targets = dict(replica.whole.named_parameters()) if replica.whole is not None else {}
    for name, piece in replica.pieces.items():
        value = values[name]
        most = -(-piece.rows_of_whole // runtime.ranks)
        padded = value.new_zeros(most, *value.shape[1:])
        padded[: len(value)] = value
        parts = [torch.empty_like(padded) for _ in range(runtime.ranks)]
        dist.all_gather(parts, padded)
        if name in targets:
            targets[name].copy_(torch.cat(parts)[: piece.rows_of_whole])


@torch.no_grad()
def copy_into(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Overwrite weights by others of the same names."""
    for name, weight in weights.items():
        weight.copy_(values[name])
