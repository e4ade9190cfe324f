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
from vitlab.models.positions import DEVIATION, RelativePositions, sincos_2d
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
        """Start the projection (truncated normal of variance 1 / fan-in, zero bias) and the stem anew."""
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
    relative = None
    if config.position == "relative":
        rows, columns = config.grid
        relative = RelativePositions(rows * columns, config.hidden // config.heads, config.prefix_tokens)
    return Block(
        config.hidden,
        config.mlp,
        config.heads,
        gelu=config.gelu,
        dropout=config.dropout,
        drop_path=config.drop_path * layer / max(1, config.layers - 1),
        norm_eps=config.norm_eps,
        relative=relative,
    )


def _encoder_block(config: ViTConfig, layer: int) -> Block | AxialBlock:
    if config.axial:
        return AxialBlock(_plain_block(config, layer), _plain_block(config, layer), config.grid)
    return _plain_block(config, layer)


def _head_layers(config: ViTConfig) -> tuple[nn.Module, nn.Module]:
    """The hidden layer and the final one; each may be missing."""
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
        if config.head == "token":
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.hidden))
        self._build_positions()
        self.patch_embed = PatchEmbed(config)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_encoder_block(config, layer) for layer in range(config.layers))
        self.norm = nn.LayerNorm(config.hidden, eps=config.norm_eps)
        self.pre_logits, self.head = _head_layers(config)
        self._reset_tokens()
        self._reset_head_layers()

    def _build_positions(self) -> None:
        config = self.config
        tables = config.layers if config.position_at == "every_layer" else 1
        if config.position == "learned":
            self.pos_embed = nn.Parameter(torch.empty(tables, config.tokens, config.hidden))
        elif config.position == "learned2d":
            self.pos_embed_row = nn.Parameter(torch.empty(tables, config.grid[0], config.hidden // 2))
            self.pos_embed_column = nn.Parameter(torch.empty(tables, config.grid[1], config.hidden // 2))
            if config.head == "token":
                self.pos_embed_cls = nn.Parameter(torch.empty(tables, 1, config.hidden))

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
        """Start the whole model anew, for one that was built on the meta device and then given memory."""
        self._reset_tokens()
        self.patch_embed.reset_parameters()
        for block in self.blocks:
            assert isinstance(block, Block | AxialBlock)
            block.reset_parameters()
        self.norm.reset_parameters()
        self._reset_head_layers()

    def reset_head(self, num_classes: int) -> None:
        """Throw the head away, hidden layer included, for a linear layer at zero (paper: section 3.2)."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes, representation=None)
        self.pre_logits, self.head = _head_layers(self.config)
        self.head.to(self.norm.weight.device, self.norm.weight.dtype)
        self._reset_head_layers()
        self.classes = None

    def _positions(self, layer: int) -> Tensor | None:
        """Table of positions to be added before a layer, (1, tokens, width); None where there is none."""
        config = self.config
        table = layer if config.position_at == "every_layer" else 0
        if config.position == "learned":
            return self.pos_embed[table : table + 1]
        if config.position == "learned2d":
            rows, columns = config.grid
            row_rcX = self.pos_embed_row[table, :, None].expand(-1, columns, -1)
            column_rcX = self.pos_embed_column[table, None].expand(rows, -1, -1)
            # Half the width tells x, the other half y.
            positions_ND = torch.cat((column_rcX, row_rcX), dim=2).flatten(0, 1)
            if config.head == "token":
                positions_ND = torch.cat((self.pos_embed_cls[table], positions_ND))
            return positions_ND[None]
        if config.position == "sincos2d":
            patches_PD = sincos_2d(config.grid, config.hidden, self.norm.weight.device)
            return F.pad(patches_PD, (0, 0, config.prefix_tokens, 0))[None]
        return None

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
        if self.config.head == "token":
            cls_B1D = self.cls_token.to(tokens_BND.dtype).expand(tokens_BND.shape[0], -1, -1)
            tokens_BND = torch.cat((cls_B1D, tokens_BND), dim=1)
        if self.config.position_at == "input":
            tokens_BND = self._add_positions(0, tokens_BND)
        dropped_BND: Tensor = self.dropout(tokens_BND)
        return dropped_BND

    def _add_positions(self, layer: int, tokens_BND: Tensor) -> Tensor:
        positions_1ND = self._positions(layer)
        return tokens_BND if positions_1ND is None else tokens_BND + positions_1ND.to(tokens_BND.dtype)

    def layer_input(self, layer: int, tokens_BND: Tensor) -> Tensor:
        """Tokens as block `layer` gets them: with positions, where the variant adds them at every layer."""
        return tokens_BND if self.config.position_at == "input" else self._add_positions(layer, tokens_BND)

    def encode(self, tokens_BND: Tensor, *, class_token_only: bool = False) -> Tensor:
        """All blocks, and the final norm on all tokens (paper: Eq. 2 to 4), (batch, tokens, width).

        Of the last block's output the head sees the class token only. `class_token_only` leaves the others out there,
        where the block can: the same numbers for a twelfth to a thirtieth less work. The result is (batch, 1, width)
        then, or all tokens.
        """
        *but_last, last = self.blocks
        for layer, block in enumerate(but_last):
            tokens_BND = block(self.layer_input(layer, tokens_BND))
        tokens_BND = self.layer_input(len(but_last), tokens_BND)
        shortened = class_token_only and isinstance(last, Block) and last.attn.relative is None
        tokens_BND = last(tokens_BND, 1) if shortened else last(tokens_BND)
        normed_BND: Tensor = self.norm(tokens_BND)
        return normed_BND

    def features(self, images_BCHW: Tensor) -> Tensor:
        """What the final linear layer sees, (batch, feature width): after the hidden tanh layer, if any."""
        by_token = self.config.head == "token"
        tokens_BND = self.encode(self.embed(images_BCHW), class_token_only=by_token)
        pooled_BD = tokens_BND[:, 0] if by_token else tokens_BND.mean(dim=1)
        return torch.tanh(self.pre_logits(pooled_BD)) if self.config.representation else pooled_BD

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits, (batch, classes), of normalised images, (batch, 3, height, width)."""
        logits_BK: Tensor = self.head(self.features(images_BCHW))
        return logits_BK
