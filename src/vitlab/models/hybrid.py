"""The hybrid's stem: a ResNet whose feature map is cut into patches (paper: section 3.1 and Table 6).

Unlike BiT's ResNet it rectifies after adding, pads as XLA does, and has other epsilons, as the original's
code.

Shapes: B batch, C channels, H W height and width of images and maps.
"""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.models.layers import lecun_normal_
from vitlab.models.resnet import standardise
from vitlab.recipes.configs import GROUPS, ResNetStem

NORM_EPS = 1e-6


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """XLA's SAME: padding before and after, so that ceil(size / stride) windows fit; the odd one is after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_same(map_BCHW: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    top, bottom = same_padding(map_BCHW.shape[2], kernel, stride)
    left, right = same_padding(map_BCHW.shape[3], kernel, stride)
    if not (top or bottom or left or right):
        return map_BCHW
    return F.pad(map_BCHW, (left, right, top, bottom), value=value)


class SameConv2d(nn.Conv2d):
    """The hybrid's convolution: standardised kernels, epsilon beside the deviation, SAME padding, no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False)

    def reset_parameters(self) -> None:
        """Truncated normal; its scale is standardised away."""
        lecun_normal_(self.weight)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The convolved map, (batch, outputs, height / stride, width / stride), rounded up."""
        padded_BCHW = _pad_same(map_BCHW, self.kernel_size[0], self.stride[0])
        return F.conv2d(padded_BCHW, standardise(self.weight, deviation_eps=1e-5), stride=self.stride)


class PostUnit(nn.Module):
    """A bottleneck with normalisation after every convolution, and a last ReLU after the addition.

    Args:
        inputs: channels in.
        width: channels inside; four times as many go out.
        stride: of the 3x3 convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = SameConv2d(inputs, width, 1)
        self.norm1 = nn.GroupNorm(GROUPS, width, eps=NORM_EPS)
        self.conv2 = SameConv2d(width, width, 3, stride)
        self.norm2 = nn.GroupNorm(GROUPS, width, eps=NORM_EPS)
        self.conv3 = SameConv2d(width, 4 * width, 1)
        self.norm3 = nn.GroupNorm(GROUPS, 4 * width, eps=NORM_EPS)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != 4 * width:
            layers = OrderedDict[str, nn.Module](
                conv=SameConv2d(inputs, 4 * width, 1, stride),
                norm=nn.GroupNorm(GROUPS, 4 * width, eps=NORM_EPS),
            )
            self.downsample = nn.Sequential(layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise all layers again; the last norm's scale at zero, so that the branch adds nothing at first."""
        for layer in self.modules():
            if isinstance(layer, SameConv2d | nn.GroupNorm):
                layer.reset_parameters()
        nn.init.zeros_(self.norm3.weight)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The unit's output map, (batch, 4 * width, height / stride, width / stride), rounded up."""
        shortcut_BCHW = map_BCHW if self.downsample is None else self.downsample(map_BCHW)
        branch_BCHW = F.relu(self.norm1(self.conv1(map_BCHW)))
        branch_BCHW = F.relu(self.norm2(self.conv2(branch_BCHW)))
        return F.relu(self.norm3(self.conv3(branch_BCHW)) + shortcut_BCHW)


class Backbone(nn.Module):
    """Root convolution, norm, ReLU, pooling, and the stages of bottlenecks.

    Args:
        config: units of each stage and width; both of the paper's ways to a hybrid are a matter of `blocks`.
    """

    def __init__(self, config: ResNetStem) -> None:
        super().__init__()
        root, *widths = config.widths
        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](conv=SameConv2d(3, root, 7, 2), norm=nn.GroupNorm(GROUPS, root, eps=NORM_EPS))
        )
        stages = []
        inputs = root
        for stage, (count, width) in enumerate(zip(config.blocks, widths, strict=True)):
            units = [PostUnit(inputs, width, 1 if stage == 0 else 2)]
            units += [PostUnit(4 * width, width, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*units))))
            inputs = 4 * width
        self.stages = nn.Sequential(*stages)

    def reset_parameters(self) -> None:
        """Initialise all layers again."""
        for part in self.stem:
            assert isinstance(part, SameConv2d | nn.GroupNorm)
            part.reset_parameters()
        for unit in self.stages.modules():
            if isinstance(unit, PostUnit):
                unit.reset_parameters()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """The feature map of normalised images, (batch, channels, height / stride, width / stride)."""
        map_BCHW = F.relu(self.stem(images_BCHW))
        map_BCHW = F.max_pool2d(_pad_same(map_BCHW, 3, 2, float("-inf")), 3, 2)
        out_BCHW: Tensor = self.stages(map_BCHW)
        return out_BCHW
