"""How tokens learn of their place: the variants of the paper's App. D.4, and other grids.

A kind of position embedding is one entry of `KINDS`; what model, file formats and figures need to know of it, they ask
here.

Shapes: B batch, N tokens, P patches, D width, H heads, E width of one head, T tables, Q a quarter of the width; R rows
and C columns of a grid; S tokens with a place along one table.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitlab.recipes.configs import ModelConfig, Position, ViTConfig

DEVIATION = 0.02  # of every learned table


def raster(grid: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """The row and the column of every patch in raster order, each (rows * columns)."""
    rows, columns = grid
    row_P = torch.arange(rows, device=device).repeat_interleave(columns)
    return row_P, torch.arange(columns, device=device).repeat(rows)


def sincos_2d(grid: tuple[int, int], width: int, device: torch.device | None = None) -> Tensor:
    """The fixed two-dimensional table of arXiv 2205.01580: [sin x, cos x, sin y, cos y].

    Returns:
        (rows * columns, width) in float32, in raster order.
    """
    quarter = width // 4
    steps_Q = torch.arange(quarter, device=device, dtype=torch.float32)
    frequencies_Q = torch.exp(steps_Q * (-math.log(10_000) / max(1, quarter - 1)))
    row_P, column_P = raster(grid, device)
    y_PQ, x_PQ = row_P[:, None] * frequencies_Q, column_P[:, None] * frequencies_Q
    return torch.cat((x_PQ.sin(), x_PQ.cos(), y_PQ.sin(), y_PQ.cos()), dim=1)


class RelativePositions(nn.Module):
    """Logits by the distance between query and key, from the query's content (paper: App. D.4).

    The paper gives every one-dimensional offset p_q - p_k (in raster order) an embedding, takes these as keys
    of a second attention by the same queries, and adds its logits to those of the content before the softmax.
    The rest is our choice: offsets are not clipped; every layer has its own table, shared by its heads (whose
    queries differ); logits are scaled by 1 / sqrt(E) as those of the content; and the class token, which has
    no place, has three distances of its own: from it, to it, and between it and itself.

    Args:
        patches: P, the longest row of tokens that have a place.
        head_width: E.
        prefix_tokens: 1 with a class token, else 0.
    """

    def __init__(self, patches: int, head_width: int, prefix_tokens: int = 0) -> None:
        super().__init__()
        self.patches = patches
        self.prefix_tokens = prefix_tokens
        self.table = nn.Parameter(torch.empty(2 * patches - 1 + 3 * prefix_tokens, head_width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A normal of deviation 0.02, as the absolute tables."""
        nn.init.normal_(self.table, std=DEVIATION)

    def index(self, tokens: int) -> Tensor:
        """The table's row for every query (row) and key (column), (tokens, tokens)."""
        place_P = torch.arange(tokens - self.prefix_tokens, device=self.table.device)
        offset_NN = place_P[:, None] - place_P + (self.patches - 1)
        if self.prefix_tokens:
            first = 2 * self.patches - 1
            offset_NN = F.pad(offset_NN, (1, 0, 0, 0), value=first)  # patch to class token
            offset_NN = F.pad(offset_NN, (0, 0, 1, 0), value=first + 1)  # class token to patch
            itself_NN = F.pad(offset_NN.new_ones(1, 1), (0, tokens - 1, 0, tokens - 1))
            offset_NN = offset_NN + itself_NN  # class token to class token: one further
        return offset_NN

    def forward(self, q_BHNE: Tensor) -> Tensor:
        """What is added to the logits: (batch, heads, tokens, tokens), already scaled."""
        # Cast before the table grows to one vector for every pair.
        keys_NNE = self.table.to(q_BHNE.dtype)[self.index(q_BHNE.shape[2])]
        return torch.einsum("bhqe,qke->bhqk", q_BHNE / math.sqrt(q_BHNE.shape[-1]), keys_NNE)


def resize_positions(
    pos_embed_TND: Tensor, from_grid: tuple[int, int], to_grid: tuple[int, int], prefix_tokens: int
) -> Tensor:
    """Tables of learned positions for another grid of patches (paper: section 3.2).

    The original's rule: an order-1 zoom whose corners stay in place, which is bilinear interpolation with
    aligned corners. The class token's vector does not change.

    Args:
        pos_embed_TND: (tables, prefix_tokens + rows * columns, width).
        from_grid: rows and columns of patches it was made for.
        to_grid: rows and columns wanted.
        prefix_tokens: 1 with a class token, else 0.

    Returns:
        (tables, prefix_tokens + new rows * new columns, width), of the same dtype.
    """
    assert pos_embed_TND.shape[1] == prefix_tokens + from_grid[0] * from_grid[1]
    if from_grid == to_grid:
        return pos_embed_TND
    prefix_TND, patches_TPD = pos_embed_TND[:, :prefix_tokens], pos_embed_TND[:, prefix_tokens:]
    map_TDRC = patches_TPD.transpose(1, 2).reshape(len(patches_TPD), -1, *from_grid)
    resized_TDRC = F.interpolate(map_TDRC, to_grid, mode="bilinear", align_corners=True)
    resized_TPD = resized_TDRC.flatten(2).transpose(1, 2)
    return torch.cat((prefix_TND, resized_TPD), dim=1)


def _resize_line(table_TND: Tensor, length: int) -> Tensor:
    return resize_positions(table_TND, (table_TND.shape[1], 1), (length, 1), 0)


Tables = Mapping[str, Tensor]


@dataclass(frozen=True)
class TableKind:
    """One learned table of a model: (T, S, X), T being 1, or the number of layers with a table each.

    Attributes:
        shape: S and X for a configuration.
        resize: the table for another configuration, from the table, its own configuration and the wanted one.
    """

    shape: Callable[[ViTConfig], tuple[int, int]]
    resize: Callable[[Tensor, ViTConfig, ViTConfig], Tensor]


@dataclass(frozen=True)
class PositionKind:
    """A kind of position embedding.

    Attributes:
        meaning: what is done with it, for people; empty where nothing is.
        tables: its learned tables, by their names in the model.
        vectors: from a configuration, its tables, the number of the table and a device to what is added to the tokens,
            (tokens, width); None where nothing is added to tokens.
        by_distance: whether it acts on attention's logits, through `RelativePositions`.
    """

    meaning: str = ""
    tables: Mapping[str, TableKind] = field(default_factory=dict)
    vectors: Callable[[ViTConfig, Tables, int, torch.device], Tensor] | None = None
    by_distance: bool = False

    @property
    def is_learned(self) -> bool:
        """Whether what is added to the tokens was learned."""
        return bool(self.tables)


def _resize_grid(table_TND: Tensor, old: ViTConfig, new: ViTConfig) -> Tensor:
    return resize_positions(table_TND, old.grid, new.grid, new.prefix_tokens)


def _learned(config: ViTConfig, tables: Tables, number: int, device: torch.device) -> Tensor:
    return tables["pos_embed"][number]


def _learned_2d(config: ViTConfig, tables: Tables, number: int, device: torch.device) -> Tensor:
    """Half the width encodes x, the other half y; the class token has a vector of its own."""
    rows, columns = config.grid
    row_RCX = tables["pos_embed_row"][number, :, None].expand(-1, columns, -1)
    column_RCX = tables["pos_embed_column"][number, None].expand(rows, -1, -1)
    patches_PD = torch.cat((column_RCX, row_RCX), dim=2).flatten(0, 1)
    return torch.cat((tables["pos_embed_cls"][number], patches_PD)) if config.prefix_tokens else patches_PD


def _fixed_2d(config: ViTConfig, tables: Tables, number: int, device: torch.device) -> Tensor:
    return F.pad(sincos_2d(config.grid, config.hidden, device), (0, 0, config.prefix_tokens, 0))


KINDS: Mapping[Position, PositionKind] = {
    "none": PositionKind(),
    "learned": PositionKind(
        "a learned vector for every place is added",
        {"pos_embed": TableKind(lambda config: (config.tokens, config.hidden), _resize_grid)},
        _learned,
    ),
    "learned2d": PositionKind(
        "a learned vector for the column and one for the row are added",
        {
            "pos_embed_row": TableKind(
                lambda config: (config.grid[0], config.hidden // 2),
                lambda table_TRX, old, new: _resize_line(table_TRX, new.grid[0]),
            ),
            "pos_embed_column": TableKind(
                lambda config: (config.grid[1], config.hidden // 2),
                lambda table_TCX, old, new: _resize_line(table_TCX, new.grid[1]),
            ),
            "pos_embed_cls": TableKind(
                lambda config: (config.prefix_tokens, config.hidden), lambda table_TND, old, new: table_TND
            ),
        },
        _learned_2d,
    ),
    "sincos2d": PositionKind("a fixed vector of sines and cosines of the place is added", vectors=_fixed_2d),
    "relative": PositionKind("attention adds a learned term for every distance", by_distance=True),
}
ADDED = tuple(name for name, kind in KINDS.items() if kind.vectors is not None)


def table_shapes(config: ViTConfig) -> dict[str, tuple[int, int, int]]:
    """The shapes of a model's learned tables, (T, S, X), by their names; tables without a token are left out."""
    count = config.layers if config.position_at == "every_layer" else 1
    shapes = {name: (count, *table.shape(config)) for name, table in KINDS[config.position].tables.items()}
    return {name: shape for name, shape in shapes.items() if shape[1]}


def position_vectors(config: ViTConfig, tables: Tables, layer: int, device: torch.device) -> Tensor | None:
    """What is added to the tokens before a layer, (1, tokens, width); None where nothing is.

    Args:
        config: of the model.
        tables: the model's learned tables, as `table_shapes` names them.
        layer: which one, from 0.
        device: where fixed vectors are made.
    """
    vectors = KINDS[config.position].vectors
    number = layer if config.position_at == "every_layer" else 0
    return None if vectors is None else vectors(config, tables, number, device)[None]


def relative_positions(config: ViTConfig) -> RelativePositions | None:
    """A layer's own relative positions; None where the kind acts on tokens."""
    if not KINDS[config.position].by_distance:
        return None
    rows, columns = config.grid
    return RelativePositions(rows * columns, config.hidden // config.heads, config.prefix_tokens)


def _places(name: str, config: ModelConfig) -> int:
    """How many tokens in a row the relative positions called `name` are for."""
    if isinstance(config, ViTConfig):
        return config.grid[0] * config.grid[1]
    _, stage, _, unit, _, axis, *_ = name.split(".")  # stages.S.blocks.B.conv2.row.relative.table
    # The first unit of a later stage attends before it halves the map.
    grid = config.stage_hw(int(stage) - (unit == "0" and stage != "0"))
    return grid[0] if axis == "column" else grid[1]


def resize_position_tensors(
    tensors: Mapping[str, Tensor], from_config: ModelConfig, to_config: ModelConfig
) -> dict[str, Tensor]:
    """A state dict whose position tables are fit for another image size; everything else is passed on.

    Tables of two dimensions are resized by `resize_positions`, tables of rows, of columns and of relative
    offsets along their one dimension by the same rule; what belongs to the class token stays.

    Args:
        tensors: state dict of a model of `from_config`.
        from_config: what they were made for.
        to_config: what is wanted, alike but for the image size.
    """
    resized = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(".relative.table"):
            offsets = 2 * _places(name, from_config) - 1
            line = _resize_line(tensor[None, :offsets], 2 * _places(name, to_config) - 1)[0]
            resized[name] = torch.cat((line, tensor[offsets:]))
        elif isinstance(from_config, ViTConfig) and isinstance(to_config, ViTConfig):
            table = KINDS[from_config.position].tables.get(name)
            if table is not None:
                resized[name] = table.resize(tensor, from_config, to_config)
    return resized
