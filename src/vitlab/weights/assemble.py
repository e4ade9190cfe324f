"""From a plan to a model: everything is compared before anything is allocated, then read one array at a time.

The model is built once, on the meta device, where it has shapes and no memory; the arrays of the file become its
parameters. No random start is drawn for weights that are about to be replaced.
"""

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from vitlab.errors import UserError
from vitlab.models.build import HEAD_MODULES, Model, build
from vitlab.models.positions import resize_position_tensors
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.zoo import configure
from vitlab.weights.plan import LoadPlan, Size
from vitlab.weights.readers.tensors import TORCH_TYPES, Shape, TensorFile, listed, shown

log = logging.getLogger(__name__)

# A config can ask for tables that no file has to hold; this many elements are small beside any model.
SLACK_ELEMENTS = 2**22
# What initialisers of PyTorch and of vitlab call on a tensor.
FILLING = {
    "add_",
    "clamp_",
    "constant_",
    "erfinv_",
    "fill_",
    "kaiming_uniform_",
    "mul_",
    "normal_",
    "uniform_",
    "zero_",
}


def assemble(
    file: TensorFile, plan: LoadPlan, *, num_classes: int | None = None, image_size: Size | None = None
) -> Model:
    """The model of `plan` with its arrays from `file`.

    Args:
        file: the arrays.
        plan: what they are.
        num_classes: where it differs from the file's, the head is one of zeros (paper: section 3.2).
        image_size: where it differs from the file's, the position embeddings are resampled (paper: section 3.2).

    Raises:
        UserError: arrays missing, unexpected, misshaped, damaged, or not finite.
    """
    model = _within_budget(file, plan.config)
    new_head = num_classes is not None and num_classes != plan.config.num_classes
    expected = {name: shape for name, shape in _shapes(model).items() if not (new_head and _is_of_head(name))}
    check_arrays(file, plan, expected, new_head=new_head)
    check_types(file, plan, expected)
    check_class_names(file, plan)
    config = _target(plan.config, num_classes if new_head else None, image_size)
    if config != plan.config:
        model = _on_meta(config)
    _log_dropped(file, plan)
    read = _reader(file, plan)
    # By source, so that stacked layers are read one stack at a time.
    order = sorted(expected, key=lambda name: plan.sources[name].names)
    state = _resampled({name: _finite(file, plan, name, read) for name in order}, plan.config, config, file.where)
    _warn_of_zero_head(state, file.where)
    if new_head:
        state |= {name: torch.zeros(shape) for name, shape in _shapes(model).items() if _is_of_head(name)}
        log.info("%s: a new head of zeros for %d classes", file.where, config.num_classes)
    model.load_state_dict(state, assign=True)
    model.preprocessing = dataclasses.replace(plan.preprocessing, size=config.image_hw)
    model.classes = None if new_head else plan.classes
    return model


def _within_budget(file: TensorFile, config: ModelConfig) -> Model:
    """The model without memory, unless the config asks for far more than the file holds.

    Raises:
        UserError: it does.
    """
    held = sum(math.prod(array.shape) for array in file.arrays.values())
    units = config.layers if isinstance(config, ViTConfig) else sum(config.blocks)
    stem = sum(config.resnet.blocks) if isinstance(config, ViTConfig) and config.resnet else 0
    if units + stem <= len(file.arrays):
        try:
            model = _on_meta(config)
            if sum(math.prod(shape) for shape in _shapes(model).values()) <= held + SLACK_ELEMENTS:
                return model
        except (RuntimeError, OverflowError, TypeError):
            pass  # sizes that PyTorch cannot count
    raise UserError(
        f"{file.where}: the arrays hold {held} numbers, too few for {described(config)}; "
        "the weights and their config.json do not belong together, or the download stopped early"
    )


def check_arrays(file: TensorFile, plan: LoadPlan, expected: Mapping[str, Shape], *, new_head: bool) -> None:
    """Compare names and shapes with the model's.

    Raises:
        UserError: counts and names what is missing, unexpected or misshaped.
    """
    missing = [name for name in expected if name not in plan.sources]
    used = {name for source in plan.sources.values() for name in source.names}
    surplus = [
        source.names[0]
        for name, source in plan.sources.items()
        if name not in expected and not (new_head and _is_of_head(name))
    ]
    unexpected = [name for name in file.shapes if name not in used and name not in plan.dropped] + surplus
    misshaped = _misshaped(file.shapes, plan, expected)
    findings = [
        f"{len(missing)} missing ({listed(missing)})" if missing else "",
        f"{len(unexpected)} unexpected ({listed(unexpected)})" if unexpected else "",
        f"{len(misshaped)} misshaped ({listed(misshaped, 2)})" if misshaped else "",
    ]
    if any(findings):
        raise UserError(
            f"{file.where}: recognised as {plan.format} and {described(plan.config)}, but of its arrays "
            f"{'; '.join(finding for finding in findings if finding)}; check that the file is complete and of this "
            "model"
        )


def _misshaped(shapes: Mapping[str, Shape], plan: LoadPlan, expected: Mapping[str, Shape]) -> list[str]:
    misshaped = []
    for name, shape in expected.items():
        source = plan.sources.get(name)
        if source is None:
            continue
        try:
            actual = str(source.shape(shapes))
        except (RuntimeError, IndexError, ValueError, TypeError):
            actual = " and ".join(str(shapes.get(part)) for part in source.names)
        if actual != str(shape):
            misshaped.append(f"{shown(source.names[0])}: {actual} where {shape} was expected")
    return misshaped


def check_types(file: TensorFile, plan: LoadPlan, expected: Iterable[str]) -> None:
    """Refuse arrays that hold anything else than floating-point numbers.

    Raises:
        UserError: names them.
    """
    sources = {source for name in expected for source in plan.sources[name].names}
    wrong = [name for name in sources if file.arrays[name].dtype not in TORCH_TYPES]
    if wrong:
        kinds = ", ".join(sorted({file.arrays[name].dtype for name in wrong}))
        raise UserError(
            f"{file.where}: {len(wrong)} arrays ({listed(wrong)}) hold {shown(kinds)}; weights are one of "
            f"{', '.join(TORCH_TYPES)}"
        )


def check_class_names(file: TensorFile, plan: LoadPlan) -> None:
    """Refuse names for another number of classes than the head has.

    Raises:
        UserError: says both numbers.
    """
    if plan.classes is not None and len(plan.classes) != plan.config.num_classes:
        raise UserError(
            f"{file.where}: config.json names {len(plan.classes)} classes, the head has {plan.config.num_classes}; "
            "correct the names or remove them"
        )


def described(config: ModelConfig) -> str:
    """A model in a few words, for messages."""
    if isinstance(config, ResNetConfig):
        return f"a ResNet of blocks {config.blocks}, width {config.width:g}, {config.num_classes} classes"
    kind = "hybrid" if config.resnet else "ViT"
    return (
        f"a {kind} of {config.layers} layers, width {config.hidden}, patch {config.patch}, "
        f"image size {config.image_size}, {config.num_classes} classes"
    )


class _WithoutFilling(TorchFunctionMode):
    """Skips what sets values: there are none on the meta device, where normal_ alone would import torch._dynamo."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func.__name__ in FILLING:
            return args[0] if args else named["tensor"]
        return func(*args, **named)


def _on_meta(config: ModelConfig) -> Model:
    with torch.device("meta"), _WithoutFilling():
        return build(config)


def _shapes(model: Model) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _is_of_head(name: str) -> bool:
    """Whether an array belongs to the head, which fine-tuning replaces, representation layer included."""
    return name.startswith(HEAD_MODULES)


def _target(config: ModelConfig, num_classes: int | None, image_size: Size | None) -> ModelConfig:
    options: dict[str, object] = {} if image_size is None else {"image_size": image_size}
    if num_classes is not None:
        options["num_classes"] = num_classes
        if isinstance(config, ViTConfig):
            options["representation"] = None
    return configure(config, options)


def _log_dropped(file: TensorFile, plan: LoadPlan) -> None:
    for reason in sorted(set(plan.dropped.values())):
        names = [name for name, why in plan.dropped.items() if why == reason]
        log.warning("%s: %d arrays left out: %s (%s)", file.where, len(names), reason, listed(names, 2))


def _reader(file: TensorFile, plan: LoadPlan) -> Callable[[str], torch.Tensor]:
    """Stacked layers are one array that many of the model's are made of: read once, and freed after the last."""
    uses = Counter(name for source in plan.sources.values() for name in source.names)
    held: dict[str, torch.Tensor] = {}

    def read(name: str) -> torch.Tensor:
        uses[name] -= 1
        tensor = held.pop(name) if name in held else file.read(name)
        if uses[name] > 0:
            held[name] = tensor
        return tensor

    return read


def _finite(file: TensorFile, plan: LoadPlan, name: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
    tensor = plan.sources[name].tensor(read)
    if not _owns_memory(tensor):
        # A slice must not keep a complete stack of layers alive.
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    # The extremes are NaN where any number is; one pass, and no array of flags as large as the weights.
    if tensor.numel() and not all(bool(extreme.isfinite()) for extreme in tensor.aminmax()):
        bad = int((~torch.isfinite(tensor)).sum())
        sources = listed(plan.sources[name].names)
        raise UserError(
            f"{file.where}: {bad} of {tensor.numel()} numbers in {sources} are NaN or infinite; "
            "use an earlier checkpoint"
        )
    return tensor


def _owns_memory(tensor: torch.Tensor) -> bool:
    """Whether the array fills its storage, one number after another."""
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _warn_of_zero_head(state: Mapping[str, torch.Tensor], where: str) -> None:
    for name in state:
        if _is_of_head(name) and name.endswith("weight") and state[name].numel() and not state[name].any():
            log.warning("%s: the head is all zeros: every class scores the same until it is fine-tuned", where)


def _resampled(
    state: dict[str, torch.Tensor], old: ModelConfig, new: ModelConfig, where: str
) -> dict[str, torch.Tensor]:
    if not isinstance(old, ViTConfig) or not isinstance(new, ViTConfig) or old.grid == new.grid:
        return state
    log.warning("%s: positions resampled from %s to %s patches", where, old.grid, new.grid)
    return resize_position_tensors(state, old, new)
