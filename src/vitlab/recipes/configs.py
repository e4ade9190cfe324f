"""The model configurations: frozen values that say all about a model's shape (paper: section 3.1, App. D)."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.validation import one_line_errors

Head = Literal["token", "gap"]
Position = Literal["learned", "none", "learned2d", "relative", "sincos2d"]
PositionAt = Literal["input", "every_layer", "every_layer_shared"]
Gelu = Literal["tanh", "erf"]
Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _square_as_int(size: int | tuple[int, int]) -> int | tuple[int, int]:
    return size[0] if isinstance(size, tuple) and size[0] == size[1] else size


Size = Annotated[Count | tuple[Count, Count], AfterValidator(_square_as_int)]
CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)
GROUPS = 32  # of every group normalisation (BiT)


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """`size` as (height, width)."""
    return (size, size) if isinstance(size, int) else size


def _nearest_multiples(value: int, step: int) -> str:
    below, above = value // step * step, (value // step + 1) * step
    return f"{below} and {above}" if below else f"{above} and {above + step}"


def _stage_widths(blocks: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Channels of the root and inside every stage's units; a stage puts out four times as many."""
    root = round(64 * width)
    if root < GROUPS or root % GROUPS:
        raise UserError(
            f"ResNet width {width:g} gives {root} channels, which {GROUPS} normalisation groups cannot "
            f"share: use a multiple of 0.5, such as {max(0.5, round(width * 2) / 2):g}"
        )
    return (root, *(root * 2**stage for stage in range(len(blocks))))


@one_line_errors
@dataclass(frozen=True, config=CONFIG)
class ResNetStem:
    """The convolutional stem of a hybrid (paper: section 3.1 and Table 6).

    Attributes:
        blocks: units of each stage; (3, 4, 6, 3) is a complete ResNet50 with stride 32, (3, 4, 9) has
            stage 4's units moved into stage 3 and stride 16, () is the root convolution and pooling alone,
            with stride 4.
        width: factor on all channel counts.
    """

    blocks: tuple[Count, ...] = (3, 4, 9)
    width: float = 1.0

    def __post_init__(self) -> None:
        _stage_widths(self.blocks, self.width)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the root, then inner channels of each stage."""
        return _stage_widths(self.blocks, self.width)

    @property
    def channels(self) -> int:
        """Output channels."""
        return self.widths[-1] * 4 if self.blocks else self.widths[0]

    @property
    def stride(self) -> int:
        """Input pixels per output pixel, along each side."""
        return int(4 * 2 ** max(0, len(self.blocks) - 1))


@one_line_errors
@dataclass(frozen=True, config=CONFIG)
class ViTConfig:
    """A Vision Transformer, plain, hybrid or axial.

    Attributes:
        patch: side of a patch, an int or (height, width), in pixels; in a hybrid, of the stem's output.
        hidden: width D of every token.
        layers: encoder blocks.
        mlp: hidden width of the MLP blocks.
        heads: attention heads; they share `hidden` evenly.
        image_size: of the input, an int or (height, width), in pixels.
        num_classes: outputs of the final linear layer; 0 leaves it out, and the features are the output.
        head: "token" classifies by a class token, "gap" by the mean of all output tokens (App. D.3).
        representation: width of the pretraining head's hidden tanh layer (section 3.1); None: there is none.
        position: how tokens learn of their place (App. D.4); "sincos2d" is the fixed one of arXiv 2205.01580.
        position_at: where absolute positions are added (App. D.4).
        gelu: the tanh approximation, as the original's code, or the exact one.
        dropout: rate after every dense layer except qkv, and after adding positions (App. B.1).
        drop_path: stochastic depth of the last layer, rising linearly from 0 at the first (arXiv 2106.10270).
        resnet: the convolutional stem of a hybrid.
        axial: attend along rows, then along columns (App. D.6).
        norm_eps: of the layer normalisations.
    """

    patch: Size
    hidden: Count
    layers: Count
    mlp: Count
    heads: Count
    image_size: Size = 224
    num_classes: Annotated[int, Field(ge=0)] = 1000
    head: Head = "token"
    representation: Count | None = None
    position: Position = "learned"
    position_at: PositionAt = "input"
    gelu: Gelu = "tanh"
    dropout: Share = 0.0
    drop_path: Share = 0.0
    resnet: ResNetStem | None = None
    axial: bool = False
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_positions()

    def _check_sizes(self) -> None:
        if self.hidden % self.heads:
            raise UserError(
                f"hidden width {self.hidden} is not divisible by {self.heads} heads: "
                f"the nearest valid widths are {_nearest_multiples(self.hidden, self.heads)}"
            )
        for side, pixels, patch in zip(("height", "width"), self.image_hw, self.token_hw, strict=True):
            if pixels % patch:
                raise UserError(
                    f"image {side} {pixels} is not divisible by patch {side} {patch}: "
                    f"the nearest valid {side}s are {_nearest_multiples(pixels, patch)}"
                )

    def _check_positions(self) -> None:
        kind = POSITION_KINDS[self.position]
        if not kind.is_added and self.position_at != "input":
            raise UserError(
                f"position='{self.position}' adds no table, so position_at='{self.position_at}' has no "
                "meaning: use position_at='input', or position='learned'"
            )
        if self.hidden % kind.width_divisor:
            raise UserError(
                f"position='{self.position}' splits the hidden width in {kind.width_divisor}, and {self.hidden} is not "
                f"divisible: the nearest valid widths are {_nearest_multiples(self.hidden, kind.width_divisor)}"
            )
        if self.axial and self.head != "gap":
            raise UserError("an axial model keeps a grid of tokens, where a class token has no place: use head='gap'")
        if self.axial and kind.is_in_attention:
            valid = ", ".join(f"'{name}'" for name, other in POSITION_KINDS.items() if not other.is_in_attention)
            raise UserError(f"an axial model cannot have position='{self.position}': use one of {valid}")

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels of what is cut into patches."""
        return height_and_width(self.patch)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return height_and_width(self.image_size)

    @property
    def token_hw(self) -> tuple[int, int]:
        """Height and width in input pixels from one token to the next: the patch times the stem's stride."""
        stride = self.resnet.stride if self.resnet else 1
        return self.patch_hw[0] * stride, self.patch_hw[1] * stride

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_hw[0] // self.token_hw[0], self.image_hw[1] // self.token_hw[1]

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: 1 with a class token, else 0."""
        return 1 if self.head == "token" else 0

    @property
    def tokens(self) -> int:
        """Length of the sequence, class token included."""
        return self.grid[0] * self.grid[1] + self.prefix_tokens

    @property
    def is_last_block_shortened(self) -> bool:
        """Whether the last block computes the class token alone, the only one that the head sees."""
        return self.head == "token" and not self.axial and not POSITION_KINDS[self.position].is_in_attention

    @property
    def patch_channels(self) -> int:
        """Channels of what is cut into patches."""
        return self.resnet.channels if self.resnet else 3

    @property
    def feature_width(self) -> int:
        """Width of what the final linear layer sees."""
        return self.representation or self.hidden


@dataclass(frozen=True)
class PositionKind:
    """What a kind of position embedding means for a model's shape and cost (App. D.4).

    Attributes:
        table_parameters: of one table that is added to tokens.
        is_added: to tokens, so that `position_at` says where.
        width_divisor: what the hidden width must be a multiple of.
        is_in_attention: adds to the logits of every pair of tokens, from a table of distances in every block, so that
            every token goes through the last block.
    """

    table_parameters: Callable[[ViTConfig], int] = lambda config: 0
    is_added: bool = True
    width_divisor: int = 1
    is_in_attention: bool = False


POSITION_KINDS: dict[Position, PositionKind] = {
    "learned": PositionKind(lambda config: config.tokens * config.hidden),
    "learned2d": PositionKind(
        lambda config: sum(config.grid) * (config.hidden // 2) + config.prefix_tokens * config.hidden, width_divisor=2
    ),
    "sincos2d": PositionKind(width_divisor=4),
    "none": PositionKind(is_added=False),
    "relative": PositionKind(is_added=False, is_in_attention=True),
}


@one_line_errors
@dataclass(frozen=True, config=CONFIG)
class ResNetConfig:
    """A BiT ResNet: ResNet-v2 with group normalisation and standardised convolutions (arXiv 1912.11370).

    Attributes:
        blocks: units of each stage.
        width: factor on all channel counts.
        image_size: of the input, an int or (height, width), in pixels.
        num_classes: outputs of the final linear layer; 0 leaves it out, and the features are the output.
        axial_heads: attention heads of the AxialResNet, which has axial attention for 3x3 convolutions
            (App. D.6); None keeps the convolutions.
    """

    blocks: tuple[Count, ...]
    width: float = 1.0
    image_size: Size = 224
    num_classes: Annotated[int, Field(ge=0)] = 1000
    axial_heads: Count | None = None

    def __post_init__(self) -> None:
        if not self.blocks:
            raise UserError("blocks: a ResNet needs a stage: ResNet50 has blocks=(3, 4, 6, 3)")
        if self.axial_heads and self.widths[0] % self.axial_heads:
            raise UserError(
                f"{self.widths[0]} channels are not divisible by {self.axial_heads} axial heads: "
                "the nearest valid number is " + str(min(8, self.widths[0]))
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the root, then inner channels of each stage."""
        return _stage_widths(self.blocks, self.width)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return height_and_width(self.image_size)

    @property
    def feature_width(self) -> int:
        """Width of what the final linear layer sees."""
        return self.widths[-1] * 4

    def stage_hw(self, stage: int) -> tuple[int, int]:
        """Height and width of what stage `stage` puts out; stage 0 keeps what comes from the root's pooling.

        Every step halves and rounds up, as a 3x3 window of stride 2 and padding 1 does.
        """
        halvings = 2 + stage
        height, width = self.image_hw
        return -(-height // 2**halvings), -(-width // 2**halvings)


ModelConfig = ViTConfig | ResNetConfig
