"""What a model costs: parameters, FLOPs, exaFLOPs, core-days, by arithmetic (paper: Tables 2 and 6).

FLOPs are those of matrix products, convolutions and attention, a multiplication and its addition counted as
2, for one image forward; norms, activations and additions are left out, as is usual. All functions cost next
to nothing however large the model. Every token goes through every block here, as in the paper and in everybody's
counts; what `VisionTransformer.forward` saves in the last block, of which the head sees one token, is taken off by
`executed_flops` alone.

The exaFLOPs of Table 6 leave out products with the zeros around a convolution's map, as XLA's analysis does. So
counted all its ResNets come out within 1 %; with these products, 3 to 4 % too high, R50x1 4.1 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.configs import POSITION_KINDS, ModelConfig, ResNetConfig, ResNetStem, ViTConfig

TPU_V3_CORE_FLOPS = 61.5e12  # peak of one core in bfloat16; a chip of 123e12 has two
FORWARD_AND_BACKWARD = 3  # the backward pass costs two forward passes


def parameters(config: ModelConfig) -> int:
    """How many parameters a model of this configuration has, its head included."""
    return _resnet_parameters(config) if isinstance(config, ResNetConfig) else _vit_parameters(config)


def flops(config: ModelConfig, *, padding: bool = True) -> int:
    """FLOPs of one image forward, multiply-add = 2.

    Args:
        config: the model.
        padding: whether products with the zeros that convolutions are padded with are counted, as is usual.
    """
    return _resnet_flops(config, padding) if isinstance(config, ResNetConfig) else _vit_flops(config, padding)


def executed_flops(config: ModelConfig) -> int:
    """FLOPs that `forward` executes for one image, multiply-add = 2, from which MFU is computed.

    Where the head sees the class token alone, the last block computes queries, projection and MLP of that token only;
    keys and values are those of all tokens. Axial models and relative positions compute the complete block.
    """
    full = flops(config)
    if isinstance(config, ResNetConfig) or not config.is_last_block_shortened:
        return full
    width, tokens = config.hidden, config.tokens
    query_and_output, attention, mlp = 4 * width * width, 4 * tokens * width, 4 * width * config.mlp
    return full - (tokens - 1) * (query_and_output + attention + mlp)


def exaflops(config: ModelConfig, epochs: float, images: int) -> float:
    """Compute of a training run in 10**18 FLOPs, as in Table 6 (JFT has 303 million images per epoch).

    Products with padding are left out. Rows that do not come out: R50+L/16 at 7 epochs, which Table 6 gives as 859 and
    at 14 epochs as 1668; ViT-B/32, which is 56.1 here and 55 there.

    Args:
        config: the model at the training resolution.
        epochs: passes over the training set.
        images: in the training set.
    """
    return FORWARD_AND_BACKWARD * flops(config, padding=False) * epochs * images / 1e18


def tpu_v3_core_days(exaflops: float, utilisation: float) -> float:
    """Days that one TPU v3 core would need (paper: Table 2; a chip has two cores).

    Args:
        exaflops: compute in 10**18 FLOPs.
        utilisation: share of the peak of 61.5 TFLOP/s per core that is reached; the paper's runs reached 0.32
            to 0.43.

    Raises:
        UserError: `utilisation` is not in (0, 1].
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"utilisation {utilisation} is not a share of the peak: give a number in (0, 1], such as 0.4")
    return exaflops * 1e18 / (TPU_V3_CORE_FLOPS * utilisation) / 86_400


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _attention(width: int) -> int:
    return _linear(width, 3 * width) + _linear(width, width)


def _vit_parameters(config: ViTConfig) -> int:
    width = config.hidden
    block = 4 * width + _attention(width) + _linear(width, config.mlp) + _linear(config.mlp, width)
    if config.axial:
        block *= 2
    if POSITION_KINDS[config.position].is_in_attention:
        distances = 2 * config.grid[0] * config.grid[1] - 1 + 3 * config.prefix_tokens
        block += distances * (width // config.heads)
    patch = _linear(config.patch_channels * config.patch_hw[0] * config.patch_hw[1], width)
    tables = config.layers if config.position_at == "every_layer" else 1
    positions = tables * POSITION_KINDS[config.position].table_parameters(config)
    head = _linear(width, config.representation) if config.representation else 0
    head += _linear(config.feature_width, config.num_classes) if config.num_classes else 0
    tokens = width * config.prefix_tokens + positions
    return stem_parameters(config) + patch + tokens + config.layers * block + 2 * width + head


def _vit_flops(config: ViTConfig, padding: bool) -> int:
    width, tokens = config.hidden, config.tokens
    rows, columns = config.grid
    dense = 2 * tokens * (4 * width * width + 2 * width * config.mlp)
    if config.axial:
        block = 2 * dense + 4 * tokens * (rows + columns) * width
    else:
        block = dense + 4 * tokens * tokens * width
    if POSITION_KINDS[config.position].is_in_attention:
        block += 2 * tokens * tokens * width
    patch = 2 * rows * columns * width * config.patch_channels * config.patch_hw[0] * config.patch_hw[1]
    stem = _stem_flops(config.resnet, config.image_hw, padding) if config.resnet else 0
    head = width * (config.representation or 0) + config.feature_width * config.num_classes
    return stem + patch + config.layers * block + 2 * head


@dataclass(frozen=True)
class Units:
    """`count` equal units of a ResNet: channels in and inside, sizes of their input and output maps."""

    count: int
    inputs: int
    width: int
    first: bool
    in_hw: tuple[int, int]
    out_hw: tuple[int, int]

    @property
    def in_area(self) -> int:
        """Places of the input map."""
        return self.in_hw[0] * self.in_hw[1]

    @property
    def out_area(self) -> int:
        """Places of the output map."""
        return self.out_hw[0] * self.out_hw[1]


def _halved(size: tuple[int, int], times: int) -> tuple[int, int]:
    return -(-size[0] // 2**times), -(-size[1] // 2**times)


def units_of(blocks: tuple[int, ...], widths: tuple[int, ...], image_hw: tuple[int, int]) -> Iterator[Units]:
    """The units of a ResNet, equal ones together.

    Args:
        blocks: units of each stage.
        widths: channels of the root, then inner channels of each stage.
        image_hw: height and width of the image.
    """
    inputs = widths[0]
    for stage, (count, width) in enumerate(zip(blocks, widths[1:], strict=True)):
        in_hw, out_hw = _halved(image_hw, 2 + max(0, stage - 1)), _halved(image_hw, 2 + stage)
        yield Units(1, inputs, width, True, in_hw, out_hw)
        if count > 1:
            yield Units(count - 1, 4 * width, width, False, out_hw, out_hw)
        inputs = 4 * width


def _root_parameters(channels: int) -> int:
    return 7 * 7 * 3 * channels


def _root_flops(channels: int, image_hw: tuple[int, int], padding: bool, same: bool) -> int:
    return 2 * 3 * channels * _taps(image_hw, 7, 2, padding, same)


def _taps(map_hw: tuple[int, int], kernel: int, stride: int, padding: bool, same: bool) -> int:
    """How often a kernel's windows touch a place: all of their area times all windows, or the map's own places alone.

    Args:
        map_hw: height and width of the input.
        kernel: side of the kernel.
        stride: 1 or 2.
        padding: whether places outside of the map count.
        same: XLA's padding, with the odd zero at the end, instead of kernel // 2 on both sides.
    """
    touched = 1
    for size in map_hw:
        windows = -(-size // stride)
        before = max((windows - 1) * stride + kernel - size, 0) // 2 if same else kernel // 2
        side = 0
        for tap in range(kernel):
            first = max(0, -(-(before - tap) // stride))
            last = min(windows - 1, (size - 1 + before - tap) // stride)
            side += windows if padding else max(0, last - first + 1)
        touched *= side
    return touched


def stem_parameters(config: ViTConfig) -> int:
    """How many of a hybrid's parameters are its ResNet's; 0 of a plain Vision Transformer's."""
    stem = config.resnet
    if stem is None:
        return 0
    total = _root_parameters(stem.widths[0]) + 2 * stem.widths[0]
    for units in units_of(stem.blocks, stem.widths, (224, 224)):
        width, inputs = units.width, units.inputs
        unit = inputs * width + 9 * width * width + 4 * width * width + 2 * (width + width + 4 * width)
        if units.first:
            unit += 4 * width * inputs + 2 * 4 * width
        total += units.count * unit
    return total


def _stem_flops(stem: ResNetStem, image_hw: tuple[int, int], padding: bool) -> int:
    convolved = (
        _convolution_flops(units, padding, same=True) for units in units_of(stem.blocks, stem.widths, image_hw)
    )
    return _root_flops(stem.widths[0], image_hw, padding, same=True) + sum(convolved)


def _convolution_flops(units: Units, padding: bool, *, same: bool = False, spatial: bool = True) -> int:
    width = units.width
    unit = units.in_area * units.inputs * width + units.out_area * 4 * width * width
    if spatial:
        stride = 1 if units.in_hw == units.out_hw else 2
        unit += _taps(units.in_hw, 3, stride, padding, same) * width * width
    if units.first:
        unit += units.out_area * units.inputs * 4 * width
    return units.count * 2 * unit


def _resnet_parameters(config: ResNetConfig) -> int:
    total = _root_parameters(config.widths[0])
    for units in units_of(config.blocks, config.widths, config.image_hw):
        width, inputs = units.width, units.inputs
        unit = inputs * width + 4 * width * width + 2 * (inputs + width + width)
        if config.axial_heads:
            distances = 2 * sum(units.in_hw) - 2
            unit += 2 * _attention(width) + distances * (width // config.axial_heads)
        else:
            unit += 9 * width * width
        if units.first:
            unit += inputs * 4 * width
        total += units.count * unit
    head = _linear(config.feature_width, config.num_classes) if config.num_classes else 0
    return total + 2 * config.feature_width + head


def _resnet_flops(config: ResNetConfig, padding: bool) -> int:
    total = _root_flops(config.widths[0], config.image_hw, padding, same=False)
    for units in units_of(config.blocks, config.widths, config.image_hw):
        total += _convolution_flops(units, padding, spatial=not config.axial_heads)
        if config.axial_heads:
            dense = 2 * 2 * units.in_area * 4 * units.width * units.width
            content_and_relative = (4 + 2) * units.in_area * sum(units.in_hw) * units.width
            total += units.count * (dense + content_and_relative)
    return total + 2 * config.feature_width * config.num_classes
