"""How a training image is varied before it is seen: the value that a recipe holds (paper: sections 4.1, B.1.1)."""

from typing import Literal, Self

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.validation import one_line_errors

Crop = Literal["none", "inception", "pad"]


@one_line_errors
@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Augmentation:
    """Training augmentation: a crop, then a mirror image in half of the cases.

    Attributes:
        crop: "inception" cuts a random box and resizes it to the model's input, as the paper's pretraining
            does; "pad" prepares the image as for evaluation, adds `pad` black pixels on every side and cuts
            the model's input out at a random place, which suits images of 28 x 28 pixels; "none" only
            prepares.
        area: smallest and largest share of the image that an inception crop keeps.
        aspect: smallest and largest width / height of an inception crop.
        pad: black pixels on every side before a pad crop.
        flip: whether half of the images are mirrored left to right.
    """

    crop: Crop = "none"
    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    pad: int = 2
    flip: bool = True

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"augmentation.area is {self.area}: give 0 < smallest <= largest <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"augmentation.aspect is {self.aspect}: give 0 < smallest <= largest")
        if self.pad < 0:
            raise UserError(f"augmentation.pad is {self.pad}: give 0 or more pixels")
        return self
