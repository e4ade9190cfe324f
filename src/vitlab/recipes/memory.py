"""How much memory a model takes, by arithmetic: weights, gradients, optimizer, and what the backward pass keeps.

What is kept is what PyTorch's autograd keeps of this package's models. Under bfloat16 autocasting the norms work on
float32 copies, matrix products on bfloat16 copies, so that it is not simply half. All functions cost next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vitlab.errors import UserError
from vitlab.recipes import cost
from vitlab.recipes.configs import POSITION_KINDS, ModelConfig, ResNetConfig, ResNetStem, ViTConfig

Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "sgd"]

FLOAT32 = 4
INDEX = 8  # of a maximum in pooling
# The device's own context, the library's workspaces and gaps between tensors.
KEPT_FREE = 2**30
MOST_IMAGES = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of an update, by what they are for.

    Attributes:
        weights: the parameters, in float32.
        gradients: as large; they come as the activations go, so the peak has not both in full.
        moments: of the optimizer: two per parameter for AdamW, one for SGD.
        average: Polyak averaging's sums.
        activations: what the backward pass keeps of the images.
        casts: the weights once more in lower precision, or standardised.
        workspace: temporary tensors.
    """

    weights: int
    gradients: int
    moments: int
    average: int
    activations: int
    casts: int
    workspace: int

    @property
    def peak(self) -> int:
        """The most at any time: at the start of the backward pass, or at its end."""
        held = self.weights + self.moments + self.average
        return held + max(self.activations + self.casts, self.gradients) + self.workspace


@dataclass(frozen=True)
class _Sizes:
    """Bytes of a number, by who keeps it: norms' inputs, products' inputs, and everything else."""

    norm: int
    product: int
    other: int
    copies: bool  # a product's input is a copy, not what came before it


_SIZES = {"float32": _Sizes(4, 4, 4, copies=False), "bfloat16": _Sizes(4, 2, 2, copies=True)}


def training_memory(
    config: ModelConfig, batch: int, *,
    precision: Precision = "float32", optimizer: Optimizer = "adamw", averaging: bool = False, recompute: bool = False,
) -> Memory:  # fmt: skip
    """Memory of an update on `batch` images at once.

    Args:
        config: the model at the training resolution.
        batch: images that go through at once: those of one microbatch on one device.
        precision: of the matrix products; weights, gradients and moments are float32 always.
        optimizer: AdamW has two moments per parameter, SGD one.
        averaging: whether Polyak averages are kept.
        recompute: whether only the blocks' inputs are kept, and the rest is computed again.
    """
    sizes = _SIZES[precision]
    count = cost.parameters(config)
    kept, block = _kept(config, sizes)
    if recompute:
        kept = _kept_recomputed(config, sizes) + block
    return Memory(
        weights=FLOAT32 * count,
        gradients=FLOAT32 * count,
        moments=FLOAT32 * count * (2 if optimizer == "adamw" else 1),
        average=FLOAT32 * count if averaging else 0,
        activations=batch * (kept + _image(config)),
        casts=_casts(config, sizes),
        workspace=batch * _workspace(config, sizes),
    )


def inference_memory(config: ModelConfig, batch: int, *, precision: Precision = "float32") -> int:
    """Bytes that a forward pass without gradients takes: the weights, and the largest tensors of one layer.

    On the CPU this came within 17 % of what was measured, for five models.
    """
    sizes = _SIZES[precision]
    largest = _image(config)
    if isinstance(config, ResNetConfig):
        largest += max(12 * unit.width * unit.in_area for unit in _units(config)) * FLOAT32
    else:  # before and after the GELU
        largest += config.tokens * (2 * config.mlp + 2 * config.hidden) * sizes.other
    return FLOAT32 * cost.parameters(config) + batch * largest


def largest_batch(
    config: ModelConfig, device_bytes: int, *,
    precision: Precision = "float32", optimizer: Optimizer = "adamw", averaging: bool = False, recompute: bool = False,
) -> int:  # fmt: skip
    """The most images whose update fits into a device's memory, a gibibyte kept free; 0 where none does.

    Args:
        config: the model at the training resolution.
        device_bytes: of one device.
        precision: see `training_memory`, as the other arguments.
        optimizer: likewise.
        averaging: likewise.
        recompute: likewise.
    """

    def fits(batch: int) -> bool:
        needed = training_memory(
            config, batch, precision=precision, optimizer=optimizer, averaging=averaging, recompute=recompute
        )
        return needed.peak <= device_bytes - KEPT_FREE

    return _last(fits)


def largest_inference_batch(config: ModelConfig, device_bytes: int, *, precision: Precision = "float32") -> int:
    """The most images whose forward pass fits into a device's memory (paper: Figure 12, right); 0 where none does."""
    return _last(lambda batch: inference_memory(config, batch, precision=precision) <= device_bytes - KEPT_FREE)


def bytes_of(text: str) -> int:
    """A size such as "80GB" or "16 GiB" in bytes.

    Raises:
        UserError: it is no size.
    """
    units = {"gib": 2**30, "gb": 10**9, "mib": 2**20, "mb": 10**6}
    words = text.strip().lower()
    for unit, size in units.items():
        number = words.removesuffix(unit).strip()
        if words.endswith(unit) and number.isascii() and number.replace(".", "", 1).isdecimal() and len(number) < 12:
            return round(float(number) * size)
    raise UserError(f"memory '{text}': write a number with GB or GiB, such as 80GB")


def _last(fits: Callable[[int], bool]) -> int:
    """The largest number of images that fits; memory grows with the number."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high < MOST_IMAGES and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _kept(config: ModelConfig, sizes: _Sizes) -> tuple[int, int]:
    """Bytes kept of one image, and those of its largest block."""
    if isinstance(config, ResNetConfig):
        units = [(unit.count, _unit(unit, sizes, config.axial_heads or 0)) for unit in _units(config)]
        height, width = config.stage_hw(len(config.blocks) - 1)
        last = config.feature_width * height * width
        ends = _root(config.widths[0], config.image_hw, sizes) + last * (sizes.norm + FLOAT32)
        return sum(count * size for count, size in units) + ends, max(size for _, size in units)
    block = _encoder_block(config, sizes)
    last = _shortened_block(config, sizes) if config.is_last_block_shortened else block
    return (config.layers - 1) * block + last + _before_and_after(config, sizes), block


def _kept_recomputed(config: ModelConfig, sizes: _Sizes) -> int:
    """Bytes kept of one image where every block keeps its input alone."""
    if isinstance(config, ResNetConfig):
        maps = sum(unit.count * unit.inputs * unit.in_area for unit in _units(config))
        return maps * sizes.other + _root(config.widths[0], config.image_hw, sizes)
    return config.layers * config.tokens * config.hidden * sizes.other + _before_and_after(config, sizes)


def _shortened_block(config: ViTConfig, sizes: _Sizes) -> int:
    """The last block, whose keys and values are of all tokens, and everything else of the class token."""
    return config.tokens * config.hidden * (sizes.norm + sizes.product + 2 * sizes.other)


def _encoder_block(config: ViTConfig, sizes: _Sizes) -> int:
    """Two norms' inputs; the inputs of qkv, proj, fc1 and fc2; qkv's output and the GELU's input."""
    tokens, width = config.tokens, config.hidden
    numbers = 2 * width * sizes.norm + (3 * width + config.mlp) * sizes.product + (3 * width + config.mlp) * sizes.other
    if config.dropout:
        numbers += 2 * width + config.mlp  # masks of one byte on a GPU; on the CPU they are float32
    sums = config.heads * FLOAT32  # of each softmax
    if POSITION_KINDS[config.position].is_in_attention:
        sums += config.heads * tokens * sizes.other  # what is added to the logits
    return (2 if config.axial else 1) * tokens * (numbers + sums)


def _before_and_after(config: ViTConfig, sizes: _Sizes) -> int:
    """Cut patches, the stem, the final norm."""
    rows, columns = config.grid
    patches = rows * columns * config.patch_channels * config.patch_hw[0] * config.patch_hw[1] * sizes.product
    stem = _stem(config.resnet, config.image_hw, sizes) if config.resnet else 0
    # The class token is a view, by which all normed tokens are held, unless it is cast to a copy.
    tokens = 1 if config.is_last_block_shortened else config.tokens
    normed = 0 if sizes.copies or config.head == "gap" else tokens * config.hidden * FLOAT32
    return patches + stem + tokens * config.hidden * sizes.norm + normed


def _stem(stem: ResNetStem, image_hw: tuple[int, int], sizes: _Sizes) -> int:
    """The hybrid's: norms after the convolutions, and maps padded before them."""
    copy = sizes.product if sizes.copies else 0
    root = _root(stem.widths[0], image_hw, sizes) + stem.widths[0] * _halved_area(image_hw) * (sizes.norm + FLOAT32)
    total = root
    for unit in cost.units_of(stem.blocks, stem.widths, image_hw):
        inner, outer, wide = unit.width * unit.in_area, unit.width * unit.out_area, 4 * unit.width * unit.out_area
        size = (inner + outer) * (sizes.norm + FLOAT32 + copy) + inner * sizes.product + wide * (sizes.norm + FLOAT32)
        if unit.first:
            size += wide * sizes.norm
        total += unit.count * (size + unit.inputs * unit.in_area * copy)
    return total


def _unit(unit: cost.Units, sizes: _Sizes, axial_heads: int) -> int:
    """A unit of BiT's ResNet keeps for each of its three norms the input, and the rectified output.

    Two attentions in place of a convolution keep what a block's attention keeps, and what is added to their logits.
    """
    copy = sizes.product if sizes.copies else 0
    numbers = (unit.inputs + unit.width) * unit.in_area + unit.width * unit.out_area
    attention = 0
    if axial_heads:
        attention = 2 * unit.width * (2 * sizes.product + 3 * sizes.other)
        attention += axial_heads * sum(unit.in_hw) * sizes.other
    return numbers * (sizes.norm + FLOAT32 + copy) + unit.in_area * attention


def _root(channels: int, image_hw: tuple[int, int], sizes: _Sizes) -> int:
    """The root's output, padded for pooling, and where the maxima were."""
    area = _halved_area(image_hw)
    return channels * (area * sizes.other + area // 4 * INDEX)


def _casts(config: ModelConfig, sizes: _Sizes) -> int:
    """Weights in lower precision; standardised kernels, and tables of relative positions as they are multiplied."""
    count = cost.parameters(config)
    copies = sizes.product * count if sizes.copies else 0
    if isinstance(config, ResNetConfig):
        head = (config.feature_width + 1) * config.num_classes
        return copies + 2 * FLOAT32 * (count - head)
    if POSITION_KINDS[config.position].is_in_attention:
        pair = config.hidden // config.heads * sizes.other + 2 * INDEX
        copies += config.layers * config.tokens**2 * pair
    return copies + 2 * FLOAT32 * cost.stem_parameters(config)


def _workspace(config: ModelConfig, sizes: _Sizes) -> int:
    """Temporary tensors of one image: the widest tensor of a layer, and the tokens or maps beside it."""
    if isinstance(config, ResNetConfig):
        return max(8 * unit.width * unit.in_area for unit in _units(config)) * FLOAT32
    return config.tokens * (config.mlp + config.hidden) * sizes.other


def _image(config: ModelConfig) -> int:
    """The normalised image."""
    height, width = config.image_hw
    return 3 * height * width * FLOAT32


def _units(config: ResNetConfig) -> list[cost.Units]:
    return list(cost.units_of(config.blocks, config.widths, config.image_hw))


def _halved_area(image_hw: tuple[int, int]) -> int:
    return -(-image_hw[0] // 2) * -(-image_hw[1] // 2)
