"""From a plan to a model: everything is compared before anything is allocated, then read one array at a time."""

import dataclasses
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import torch

from vitlab.errors import UserError
from vitlab.models.build import Model, create_model, resize_position_tensors
from vitlab.recipes.configs import ModelConfig, ResNetConfig, ViTConfig
from vitlab.recipes.zoo import configure
from vitlab.weights.plan import Plan, Size
from vitlab.weights.readers.tensors import TORCH_TYPES, Shape, TensorFile, listed, shown

log = logging.getLogger(__name__)

# Fine-tuning throws the whole head away, the representation layer too (paper: section 3.2).
HEADS = ("head.weight", "head.bias", "head.fc.weight", "head.fc.bias", "pre_logits.weight", "pre_logits.bias")
# A config can ask for tables that no file has to hold; this many elements are small beside any model.
SLACK_ELEMENTS = 2**22


def assemble(file: TensorFile, plan: Plan, *, num_classes: int | None = None, image_size: Size | None = None) -> Model:
    """The model of `plan` with its arrays from `file`.

    Args:
        file: the arrays.
        plan: what they are.
        num_classes: another number than the file's starts a head of zeros (paper: section 3.2).
        image_size: another size than the file's resamples the position embeddings (paper: section 3.2).

    Raises:
        UserError: arrays missing, unexpected, misshaped, damaged, or not finite.
    """
    check_budget(file, plan.config)
    new_head = num_classes is not None and num_classes != plan.config.num_classes
    ignored = HEADS if new_head else ()
    expected = {name: shape for name, shape in shapes_of(plan.config).items() if name not in ignored}
    check_arrays(file, plan, expected, ignored)
    check_types(file, plan, expected)
    if plan.classes is not None and len(plan.classes) != plan.config.num_classes:
        raise UserError(
            f"{file.where}: config.json names {len(plan.classes)} classes, the head has {plan.config.num_classes}; "
            "correct the names or take them out"
        )
    config = _target(plan.config, num_classes if new_head else None, image_size)
    _tell_dropped(file, plan)
    read = _reader(file, plan)
    # By source, so that stacked layers are read one stack at a time.
    order = sorted(expected, key=lambda name: plan.parts[name].names)
    state = {name: _finite(file, plan, name, read) for name in order}
    _warn_of_zero_head(state, file.where)
    state |= {name: torch.zeros(shape) for name, shape in shapes_of(config).items() if name in ignored}
    model = _filled(config, _resampled(state, plan.config, config, file.where))
    model.preprocessing = dataclasses.replace(plan.preprocessing, size=config.image_hw)
    model.classes = None if new_head else plan.classes
    if new_head:
        log.info("%s: a new head of zeros for %d classes", file.where, config.num_classes)
    return model


def shapes_of(config: ModelConfig) -> dict[str, Shape]:
    """The names and shapes of a model's arrays, without allocating them."""
    return {name: tuple(tensor.shape) for name, tensor in _on_meta(config).state_dict().items()}


def check_budget(file: TensorFile, config: ModelConfig) -> None:
    """Refuse a config that asks for far more than the file holds, before a model of it is made.

    Raises:
        UserError: it does.
    """
    held = sum(math.prod(array.shape) for array in file.arrays.values())
    units = config.layers if isinstance(config, ViTConfig) else sum(config.blocks)
    stem = sum(config.resnet.blocks) if isinstance(config, ViTConfig) and config.resnet else 0
    wanted = math.inf
    if units + stem <= len(file.arrays):
        try:
            wanted = sum(math.prod(shape) for shape in shapes_of(config).values())
        except (RuntimeError, OverflowError, TypeError):
            wanted = math.inf  # sizes that PyTorch cannot count
    if wanted > held + SLACK_ELEMENTS:
        raise UserError(
            f"{file.where}: the arrays hold {held} numbers, too few for {described(config)}; "
            "the weights and their config.json do not belong together, or the download stopped early"
        )


def check_arrays(file: TensorFile, plan: Plan, expected: Mapping[str, Shape], ignored: Iterable[str]) -> None:
    """Compare names and shapes with the model's.

    Raises:
        UserError: counts and names what is missing, unexpected or misshaped.
    """
    shapes = file.shapes
    missing = [name for name in expected if name not in plan.parts]
    used = {source for part in plan.parts.values() for source in part.names}
    surplus = [part.names[0] for name, part in plan.parts.items() if name not in expected and name not in ignored]
    unexpected = [name for name in shapes if name not in used and name not in plan.dropped] + surplus
    misshaped = []
    for name, shape in expected.items():
        if name in plan.parts:
            try:
                found = str(plan.parts[name].shape(shapes))
            except (RuntimeError, IndexError, ValueError, TypeError):
                found = " and ".join(str(shapes.get(source)) for source in plan.parts[name].names)
            if found != str(shape):
                misshaped.append(f"{shown(plan.parts[name].names[0])}: {found} where {shape} was expected")
    findings = [
        f"{len(missing)} missing ({listed(missing)})" if missing else "",
        f"{len(unexpected)} unexpected ({listed(unexpected)})" if unexpected else "",
        f"{len(misshaped)} misshaped ({listed(misshaped, 2)})" if misshaped else "",
    ]
    if any(findings):
        raise UserError(
            f"{file.where}: taken for {plan.format} and {described(plan.config)}, but of its arrays "
            f"{'; '.join(finding for finding in findings if finding)}; check that the file is whole and of this model"
        )


def check_types(file: TensorFile, plan: Plan, expected: Iterable[str]) -> None:
    """Refuse arrays that hold anything else than floating-point numbers.

    Raises:
        UserError: names them.
    """
    sources = {source for name in expected for source in plan.parts[name].names}
    wrong = [name for name in sources if file.arrays[name].dtype not in TORCH_TYPES]
    if wrong:
        kinds = ", ".join(sorted({file.arrays[name].dtype for name in wrong}))
        raise UserError(
            f"{file.where}: {len(wrong)} arrays ({listed(wrong)}) hold {shown(kinds)}; weights are one of "
            f"{', '.join(TORCH_TYPES)}"
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


def _on_meta(config: ModelConfig) -> Model:
    with torch.device("meta"):
        return create_model(config)


def _target(config: ModelConfig, num_classes: int | None, image_size: Size | None) -> ModelConfig:
    options: dict[str, object] = {} if image_size is None else {"image_size": image_size}
    if num_classes is not None:
        options["num_classes"] = num_classes
        if isinstance(config, ViTConfig):
            options["representation"] = None
    return configure(config, options)


def _tell_dropped(file: TensorFile, plan: Plan) -> None:
    for reason in sorted(set(plan.dropped.values())):
        names = [name for name, why in plan.dropped.items() if why == reason]
        log.warning("%s: %d arrays left out: %s (%s)", file.where, len(names), reason, listed(names, 2))


def _reader(file: TensorFile, plan: Plan) -> Callable[[str], torch.Tensor]:
    """Stacked layers are one array that many parts are made of: read once, and let go with the last."""
    uses = Counter(source for part in plan.parts.values() for source in part.names)
    held: dict[str, torch.Tensor] = {}

    def read(name: str) -> torch.Tensor:
        uses[name] -= 1
        tensor = held.pop(name) if name in held else file.read(name)
        if uses[name] > 0:
            held[name] = tensor
        return tensor

    return read


def _finite(file: TensorFile, plan: Plan, name: str, read: Callable[[str], torch.Tensor]) -> torch.Tensor:
    # A copy where the part is a view: a slice must not keep a whole stack of layers alive.
    tensor = plan.parts[name].tensor(read).clone(memory_format=torch.contiguous_format)
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        sources = listed(plan.parts[name].names)
        raise UserError(
            f"{file.where}: {bad} of {tensor.numel()} numbers in {sources} are NaN or infinite; "
            "take an earlier checkpoint"
        )
    return tensor


def _warn_of_zero_head(state: Mapping[str, torch.Tensor], where: str) -> None:
    for name in HEADS[::2]:
        if name in state and state[name].numel() and not state[name].any():
            log.warning("%s: the head is all zeros: every class scores the same until it is fine-tuned", where)


def _resampled(
    state: dict[str, torch.Tensor], old: ModelConfig, new: ModelConfig, where: str
) -> dict[str, torch.Tensor]:
    if not isinstance(old, ViTConfig) or not isinstance(new, ViTConfig) or old.grid == new.grid:
        return state
    log.warning("%s: positions resampled from %s to %s patches", where, old.grid, new.grid)
    return resize_position_tensors(state, old, new)


def _filled(config: ModelConfig, state: Mapping[str, torch.Tensor]) -> Model:
    model = _on_meta(config)
    assert {name for name, _ in model.named_buffers()} <= state.keys(), "a table that is neither file's nor fixed"
    model.load_state_dict(state, assign=True)
    return model
