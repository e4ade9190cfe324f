"""The Vision Transformer (paper: section 3.1, Eq. 1 to 4), plain, hybrid or axial.

Shapes: B batch, N tokens (class token included), P patches, D width, C channels, H W image height and width, X values
of a patch, K classes; r rows and c columns of patches, h w height and width of a patch; T position tables.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.models.axial import AxialBlock
from vitlab.models.hybrid import Backbone
from vitlab.models.layers import Block, check_image_size, empty_linear, lecun_normal_
from vitlab.models.positions import DEVIATION, position_vectors, relative_positions, table_shapes
from vitlab.recipes.configs import ViTConfig
from vitlab.recipes.preprocessing import Preprocessing


class PatchEmbed(nn.Module):
    """Cut an image, or a stem's feature map, into patches and project each linearly (paper: Eq. 1)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch_hw = config.patch_hw
        self.backbone = Backbone(config.resnet) if config.resnet else None
        self.proj = nn.Conv2d(config.patch_channels, config.hidden, config.patch_hw, stride=config.patch_hw)
        self._reset_projection()

    def _reset_projection(self) -> None:
        lecun_normal_(self.proj.weight)
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def reset_parameters(self) -> None:
        """Initialise the projection (truncated normal of variance 1 / fan-in, zero bias) and the stem again."""
        self._reset_projection()
        if self.backbone is not None:
            self.backbone.reset_parameters()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Patch embeddings in raster order, (batch, patches, width).

        A convolution whose windows do not overlap is one matrix product over the cut patches: the same numbers, and no
        slower than the convolution.
        """
        map_BCHW = images_BCHW.to(self.proj.weight.dtype)
        if self.backbone is not None:
            map_BCHW = self.backbone(map_BCHW)
        batch, channels, height, width = map_BCHW.shape
        patch_h, patch_w = self.patch_hw
        rows, columns = height // patch_h, width // patch_w
        cut_BCrhcw = map_BCHW.reshape(batch, channels, rows, patch_h, columns, patch_w)
        patches_BPX = cut_BCrhcw.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_h * patch_w)
        return F.linear(patches_BPX, self.proj.weight.flatten(1), self.proj.bias)


def _plain_block(config: ViTConfig, layer: int) -> Block:
    return Block(
        config.hidden,
        config.mlp,
        config.heads,
        gelu=config.gelu,
        dropout=config.dropout,
        drop_path=config.drop_path * layer / max(1, config.layers - 1),
        norm_eps=config.norm_eps,
        relative=relative_positions(config),
    )


def _encoder_block(config: ViTConfig, layer: int) -> Block | AxialBlock:
    if config.axial:
        return AxialBlock(_plain_block(config, layer), _plain_block(config, layer), config.grid)
    return _plain_block(config, layer)


def _head_layers(config: ViTConfig) -> tuple[nn.Module, nn.Module]:
    """The hidden layer and the final one; either may be missing."""
    hidden = empty_linear(config.hidden, config.representation) if config.representation else nn.Identity()
    final = empty_linear(config.feature_width, config.num_classes) if config.num_classes else nn.Identity()
    return hidden, final


class VisionTransformer(nn.Module):
    """A Vision Transformer for image classification.

    It knows nothing of data, devices, precision or sharding, and its residual stream has the dtype of the
    patch embeddings: positions and class token are cast to it, so that under autocast the stream is not
    promoted.

    Attributes:
        config: what it was built from.
        preprocessing: what its images are like.
        classes: names of the classes, None where unknown.
        blocks: the encoder layers.
        prefix_tokens: tokens before the patches: 1 with a class token, else 0.
        grid: rows and columns of patches.

    Args:
        config: every shape and variant.
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = Preprocessing(size=config.image_hw)
        self.classes: tuple[str, ...] | None = None
        self.prefix_tokens = config.prefix_tokens
        self.grid = config.grid
        if config.prefix_tokens:
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden))
        for name, shape in table_shapes(config).items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.patch_embed = PatchEmbed(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_encoder_block(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.pre_logits, self.head = _head_layers(config)
        self._reset_tokens()
        self._reset_head_layers()

    def _reset_tokens(self) -> None:
        """The class token at zero, tables of positions normal."""
        for name, parameter in self.named_parameters(recurse=False):
            if name == "cls_token":
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=DEVIATION)

    def _reset_head_layers(self) -> None:
        """The hidden layer as a truncated normal, the final one at zero."""
        if isinstance(self.pre_logits, nn.Linear):
            lecun_normal_(self.pre_logits.weight)
            nn.init.zeros_(self.pre_logits.bias)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def reset_parameters(self) -> None:
        """Initialise all weights again, for a model that was built on the meta device and then given memory."""
        self._reset_tokens()
        self.patch_embed.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block | AxialBlock)
            block.reset_parameters()
        self.norm.reset_parameters()
        self._reset_head_layers()

    def reset_head(self, num_classes: int) -> None:
        """Replace the head, hidden layer included, by a linear layer at zero (paper: section 3.2)."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes, representation=None)
        self.pre_logits, self.head = _head_layers(self.config)
        self.head.to(self.norm.weight.device, self.norm.weight.dtype)
        self._reset_head_layers()
        self.classes = None

    def positions(self, layer: int = 0) -> Tensor | None:
        """What is added to the tokens before a layer, (1, tokens, width); None where nothing is (paper: App. D.4)."""
        tables = {name: getattr(self, name) for name in table_shapes(self.config)}
        return position_vectors(self.config, tables, layer, self.norm.weight.device)

    def embed(self, images_BCHW: Tensor) -> Tensor:
        """The encoder's input (paper: Eq. 1): class token, patches, positions, dropout.

        Args:
            images_BCHW: normalised images, (batch, 3, height, width).

        Returns:
            (batch, tokens, width).

        Raises:
            UserError: the images are of another size than the model.
        """
        check_image_size(images_BCHW, self.config.image_hw)
        return self.arrange(self.patch_embed(images_BCHW))

    def arrange(self, patches_BPD: Tensor) -> Tensor:
        """Patch embeddings as the encoder's input: all of `embed` that comes after the projection."""
        tokens_BND = patches_BPD
        if self.prefix_tokens:
            cls_B1D = self.cls_token.to(tokens_BND.dtype).expand(tokens_BND.shape[0], -1, -1)
            tokens_BND = torch.cat((cls_B1D, tokens_BND), dim=1)
        if self.config.position_at == "input":
            tokens_BND = self._add_positions(0, tokens_BND)
        dropped_BND: Tensor = self.dropout(tokens_BND)
        return dropped_BND

    def _add_positions(self, layer: int, tokens_BND: Tensor) -> Tensor:
        positions_1ND = self.positions(layer)
        return tokens_BND if positions_1ND is None else tokens_BND + positions_1ND.to(tokens_BND.dtype)

    def layer_input(self, layer: int, tokens_BND: Tensor) -> Tensor:
        """Tokens as block `layer` gets them: with positions, where the variant adds them at every layer."""
        return tokens_BND if self.config.position_at == "input" else self._add_positions(layer, tokens_BND)

    def encode(self, tokens_BND: Tensor, *, class_token_only: bool = False) -> Tensor:
        """All blocks, and the final norm on all tokens (paper: Eq. 2 to 4), (batch, tokens, width).

        The head sees only the class token of the last block's output. With `class_token_only` that block leaves the
        other tokens out, where it can: the same numbers for a twelfth to a thirtieth less work. The result is then
        (batch, 1, width), or all tokens.
        """
        *but_last, last = self.blocks
        for layer, block in enumerate(but_last):
            tokens_BND = block(self.layer_input(layer, tokens_BND))
        tokens_BND = self.layer_input(len(but_last), tokens_BND)
        shortened = class_token_only and isinstance(last, Block) and last.attn.relative is None
        tokens_BND = last(tokens_BND, 1) if shortened else last(tokens_BND)
        normed_BND: Tensor = self.norm(tokens_BND)
        return normed_BND

    def pool(self, tokens_BNX: Tensor) -> Tensor:
        """What stands for the image, (batch, X): the class token's row, or the mean of all rows without one."""
        return tokens_BNX[:, 0] if self.prefix_tokens else tokens_BNX.mean(dim=1)

    def represent(self, tokens_BND: Tensor) -> Tensor:
        """From encoded tokens to what the final linear layer sees: pooled, through the hidden tanh layer, if any."""
        pooled_BD = self.pool(tokens_BND)
        return torch.tanh(self.pre_logits(pooled_BD)) if self.config.representation else pooled_BD

    def features(self, images_BCHW: Tensor) -> Tensor:
        """What the final linear layer sees, (batch, feature width): after the hidden tanh layer, if any."""
        return self.represent(self.encode(self.embed(images_BCHW), class_token_only=self.prefix_tokens > 0))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, (batch, classes), of normalised images, (batch, 3, height, width)."""
        tokens_BND = self.embed(images_BCHW)  # Eq. 1
        tokens_BND = self.encode(tokens_BND, class_token_only=self.prefix_tokens > 0)  # Eq. 2 to 4
        logits_BK: Tensor = self.head(self.represent(tokens_BND))
        return logits_BK
