"""How an image becomes a model's input: the value that travels with the weights (paper: sections 4.1, B.1.1)."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass

Resize = Literal["square", "shorter_side"]
Interpolation = Literal["bilinear", "bicubic", "area"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Preprocessing:
    """Evaluation preprocessing: resize, centre crop, scale to [0, 1], then (value - mean) / std.

    Attributes:
        size: height and width of the model's input in pixels.
        resize: "square" resizes to size / crop whatever the proportions; "shorter_side" keeps the proportions
            and brings the shorter side to size / crop.
        crop: share of the resized side that the centre crop keeps; 224 / 256 = 0.875 in the paper's pretraining.
        interpolation: the resize's kernel; always with antialiasing when an image gets smaller.
        mean, std: per channel, on values in [0, 1]; the default is the paper's range [-1, 1].
    """

    size: tuple[PositiveInt, PositiveInt] = (224, 224)
    resize: Resize = "square"
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.5, 0.5, 0.5)
