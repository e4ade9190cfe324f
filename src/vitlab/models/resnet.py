"""BiT's ResNet: pre-activation, with group norms and standardised kernels (paper: section 4.1; arXiv 1912.11370).

Shapes: B batch, C channels, H W height and width of images and maps, D feature width, K classes, O I output and input
channels of a kernel.
"""

import dataclasses
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.models.axial import AxialAttention
from vitlab.models.layers import check_image_size, lecun_normal_
from vitlab.recipes.configs import GROUPS, ResNetConfig
from vitlab.recipes.preprocessing import Preprocessing


def standardise(weight_OIHW: Tensor, *, variance_eps: float = 0.0, deviation_eps: float = 0.0) -> Tensor:
    """Kernels with mean 0 and deviation 1 for every output channel, computed at least in float32.

    The two code bases of the paper differ in where the epsilon stands:
    (w - mean) / (sqrt(variance + variance_eps) + deviation_eps).
    """
    wide_OIHW = weight_OIHW.to(torch.promote_types(weight_OIHW.dtype, torch.float32))
    variance_O111, mean_O111 = torch.var_mean(wide_OIHW, dim=(1, 2, 3), correction=0, keepdim=True)
    deviation_O111 = (variance_O111 + variance_eps).sqrt() + deviation_eps
    return ((wide_OIHW - mean_O111) / deviation_O111).to(weight_OIHW.dtype)


class StandardisedConv2d(nn.Conv2d):
    """BiT's convolution: standardised kernels, epsilon beside the variance, symmetric padding, no bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)

    def reset_parameters(self) -> None:
        """Truncated normal; its scale is standardised away."""
        lecun_normal_(self.weight)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The convolved map, (batch, outputs, height / stride, width / stride), rounded up."""
        kernels_OIHW = standardise(self.weight, variance_eps=1e-10)
        return F.conv2d(map_BCHW, kernels_OIHW, stride=self.stride, padding=self.padding)


class Unit(nn.Module):
    """A pre-activation bottleneck: norm, ReLU and convolution three times, beside a shortcut.

    A shortcut that changes shape starts from the first normalised and rectified map.

    Args:
        inputs: channels in.
        width: channels inside; four times as many go out.
        stride: of the 3x3 convolution.
        spatial: what replaces the 3x3 convolution; None keeps the convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int, spatial: AxialAttention | None = None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inputs)
        self.conv1 = StandardisedConv2d(inputs, width, 1)
        self.norm2 = nn.GroupNorm(GROUPS, width)
        self.conv2 = spatial if spatial is not None else StandardisedConv2d(width, width, 3, stride)
        self.norm3 = nn.GroupNorm(GROUPS, width)
        self.conv3 = StandardisedConv2d(width, 4 * width, 1)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(OrderedDict(conv=StandardisedConv2d(inputs, 4 * width, 1, stride)))

    def forward(self, map_BCHW: Tensor) -> Tensor:
        """The unit's output map, (batch, 4 * width, height / stride, width / stride), rounded up."""
        active_BCHW = F.relu(self.norm1(map_BCHW))
        shortcut_BCHW = map_BCHW if self.downsample is None else self.downsample(active_BCHW)
        branch_BCHW = self.conv1(active_BCHW)
        branch_BCHW = self.conv2(F.relu(self.norm2(branch_BCHW)))
        branch_BCHW = self.conv3(F.relu(self.norm3(branch_BCHW)))
        out_BCHW: Tensor = branch_BCHW + shortcut_BCHW
        return out_BCHW


def _stage(config: ResNetConfig, stage: int) -> nn.Sequential:
    width = config.widths[1 + stage]
    inputs = config.widths[0] if stage == 0 else 2 * width
    units = OrderedDict[str, nn.Module]()
    for number in range(config.blocks[stage]):
        first = number == 0
        stride = 2 if first and stage > 0 else 1
        spatial = None
        if config.axial_heads:
            grid = config.stage_hw(stage - 1 if stride == 2 else stage)
            spatial = AxialAttention(width, config.axial_heads, grid, stride)
        units[str(number)] = Unit(inputs if first else 4 * width, width, stride, spatial)
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(units)))


class Head(nn.Module):
    """The final linear layer, kept as a 1x1 convolution as in BiT's weights."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(inputs, classes, 1) if classes else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All zero."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Logits, (batch, classes)."""
        logits_BK: Tensor = self.fc(features_BD[:, :, None, None]).flatten(1)
        return logits_BK


class ResNet(nn.Module):
    """A BiT ResNet for image classification; with `axial_heads` the AxialResNet (App. D.6).

    Attributes:
        config: what it was built from.
        preprocessing: what its images are like.
        classes: names of the classes, None where unknown.

    Args:
        config: every shape and variant.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = Preprocessing(size=config.image_hw)
        self.classes: tuple[str, ...] | None = None
        self.stem = nn.Sequential(OrderedDict(conv=StandardisedConv2d(3, config.widths[0], 7, 2)))
        self.stages = nn.Sequential(*(_stage(config, stage) for stage in range(len(config.blocks))))
        self.norm = nn.GroupNorm(GROUPS, config.feature_width)
        self.head = Head(config.feature_width, config.num_classes)

    def reset_parameters(self) -> None:
        """Initialise all weights again, for a model that was built on the meta device and then given memory."""
        for module in self.modules():
            if isinstance(module, StandardisedConv2d | nn.GroupNorm | AxialAttention | Head):
                module.reset_parameters()

    def reset_head(self, num_classes: int) -> None:
        """A new linear layer at zero for other classes, whose names are not known."""
        where = self.norm.weight
        self.head = Head(self.config.feature_width, num_classes).to(where.device, where.dtype)
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        self.classes = None

    def features(self, images_BCHW: Tensor) -> Tensor:
        """What the final linear layer sees, (batch, feature width): the mean of the last, rectified map."""
        if self.config.axial_heads:
            check_image_size(images_BCHW, self.config.image_hw)
        map_BCHW: Tensor = self.stem(images_BCHW.to(self.norm.weight.dtype))
        # BiT pads with zeros before it pools, not with minus infinity: negative maxima at the edges become 0.
        map_BCHW = F.max_pool2d(F.pad(map_BCHW, (1, 1, 1, 1)), 3, 2)
        map_BCHW = F.relu(self.norm(self.stages(map_BCHW)))
        return map_BCHW.mean(dim=(2, 3))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, (batch, classes), of normalised images, (batch, 3, height, width).

        Only the AxialResNet, which has positions, insists on its own image size.
        """
        logits_BK: Tensor = self.head(self.features(images_BCHW))
        return logits_BK
