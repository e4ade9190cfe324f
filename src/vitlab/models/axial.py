"""Axial attention: along rows and along columns of a grid (paper: App. D.6).

Shapes: B batch, R rows, C columns, N = R * C tokens, D width.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.errors import UserError
from vitlab.models.layers import Attention, Block
from vitlab.models.positions import RelativePositions


class AxialBlock(nn.Module):
    """One layer of the Axial-ViT: attention and MLP along rows, then attention and MLP along columns.

    The paper does not say what becomes of the class token. Here there is no such token: the tokens are the grid and
    nothing else, and the mean over all output tokens is classified.

    Args:
        row: an encoder layer, applied to every row on its own.
        column: an encoder layer, applied to every column on its own.
        grid: rows and columns of tokens.
    """

    def __init__(self, row: Block, column: Block, grid: tuple[int, int]) -> None:
        super().__init__()
        self.row = row
        self.column = column
        self.grid = grid

    def reset_parameters(self) -> None:
        """Initialise both layers again."""
        self.row.reset_parameters()
        self.column.reset_parameters()

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """The layer's output tokens in raster order, (batch, rows * columns, width)."""
        batch, tokens, width = tokens_BND.shape
        rows, columns = self.grid
        lines_BRxCD = self.row(tokens_BND.reshape(batch * rows, columns, width))
        turned_BCRD = lines_BRxCD.reshape(batch, rows, columns, width).transpose(1, 2)
        lines_BCxRD = self.column(turned_BCRD.reshape(batch * columns, rows, width))
        turned_BRCD: Tensor = lines_BCxRD.reshape(batch, columns, rows, width).transpose(1, 2)
        return turned_BRCD.reshape(batch, tokens, width)

    def attention_probabilities(self, tokens_BND: Tensor) -> Tensor:
        """Refused: no matrix over all tokens says what two attentions with an MLP between them do.

        Raises:
            UserError: always.
        """
        raise UserError("an axial model has no attention between all tokens: inspect a model with axial=False")


class AxialAttention(nn.Module):
    """What replaces a 3x3 convolution in the AxialResNet: attention along columns, then along rows.

    Both have relative positions. The paper refers to Axial-DeepLab and leaves the rest open: the heads are 8,
    queries, keys and values are as wide as the map, distances act through the queries alone, and a stride is
    average pooling after the attention.

    Args:
        channels: of the map, in and out.
        heads: attention heads.
        grid: largest height and width of the map.
        stride: 1 or 2.
    """

    def __init__(self, channels: int, heads: int, grid: tuple[int, int], stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        head_width = channels // heads
        self.column = Attention(channels, heads, relative=RelativePositions(grid[0], head_width))
        self.row = Attention(channels, heads, relative=RelativePositions(grid[1], head_width))

    def reset_parameters(self) -> None:
        """Initialise both attentions again."""
        self.column.reset_parameters()
        self.row.reset_parameters()

    def forward(self, map_BDRC: Tensor) -> Tensor:
        """The attended map, (batch, channels, height, width), with a stride of half the size, rounded up."""
        batch, channels, rows, columns = map_BDRC.shape
        lines_BCxRD = self.column(map_BDRC.permute(0, 3, 2, 1).reshape(batch * columns, rows, channels))
        turned_BRCD = lines_BCxRD.reshape(batch, columns, rows, channels).transpose(1, 2)
        lines_BRxCD = self.row(turned_BRCD.reshape(batch * rows, columns, channels))
        attended_BDRC: Tensor = lines_BRxCD.reshape(batch, rows, columns, channels).permute(0, 3, 1, 2)
        if self.stride == 1:
            return attended_BDRC
        return F.avg_pool2d(attended_BDRC, self.stride, ceil_mode=True)
