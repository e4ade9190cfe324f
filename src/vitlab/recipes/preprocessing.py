"""How an image becomes a model's input: preprocessing, which travels with the weights, and training's augmentation.

Paper: sections 4.1 and B.1.1.
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from pydantic.dataclasses import dataclass

from vitlab.errors import UserError
from vitlab.recipes.validation import one_line_errors

Resize = Literal["square", "shorter_side"]
Interpolation = Literal["bilinear", "bicubic", "area"]
Crop = Literal["none", "inception", "pad", "random"]
Where = Literal["workers", "device"]

LARGEST_MAGNITUDE = 30  # RandAugment's paper searches magnitudes up to 30
MOST_LAYERS = 16
MOST_ENLARGED = 4  # so that an image of a recipe does not fill the memory


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


@one_line_errors
@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Augmentation:
    """Training augmentation: a crop, a horizontal flip in half of the cases, then what is switched on.

    The order is crop, flip, RandAugment, random erasing for each image, and then Mixup or CutMix over the batch.

    Attributes:
        crop: "inception" cuts a random box and resizes it to the model's input, as the paper's pretraining
            does; "pad" preprocesses the image as for evaluation, adds `pad` black pixels on every side and cuts
            the model's input out at a random place, which suits images of 28 x 28 pixels; "random" resizes
            the image to `enlarge` times the input's sides, whatever its proportions, and cuts the input out
            at a random place, as BiT does; "none" preprocesses as for evaluation.
        area: smallest and largest share of the image's area that an inception crop keeps.
        aspect: smallest and largest width / height of an inception crop.
        pad: black pixels on every side before a pad crop.
        enlarge: the sides before a random crop over those of the model's input; BiT's 448 / 384 is 7 / 6.
        flip: whether half of the images are mirrored left to right.
        randaugment_layers: operations of RandAugment, one after another; 0 for none.
        randaugment_magnitude: the strength m of each on TensorFlow's scale, on which 10 is AutoAugment's strongest;
            arguments grow linearly beyond (`vitlab.data.augmentation.randaugment` has the formulas). AugReg uses 0
            to 20.
        mixup: alpha of Mixup's Beta(alpha, alpha); 0 for no Mixup.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0 for no CutMix. With both on, each batch gets one of the two
            with equal probability.
        erase: probability that a rectangle of an image is replaced by noise.
        where: "workers" augments each image right after decoding; "device" leaves flip, RandAugment and erasing to
            the device that trains, batch by batch, with the same random draws.
    """

    crop: Crop = "none"
    area: tuple[float, float] = (0.05, 1.0)
    aspect: tuple[float, float] = (0.75, 4 / 3)
    pad: int = 2
    enlarge: float = 7 / 6
    flip: bool = True
    randaugment_layers: int = 0
    randaugment_magnitude: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    erase: float = 0.0
    where: Where = "workers"

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"augmentation.area is {self.area}: give 0 < smallest <= largest <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise UserError(f"augmentation.aspect is {self.aspect}: give 0 < smallest <= largest")
        if self.pad < 0:
            raise UserError(f"augmentation.pad is {self.pad}: give 0 or more pixels")
        if not 1 <= self.enlarge <= MOST_ENLARGED:
            raise UserError(f"augmentation.enlarge is {self.enlarge:g}: give a factor from 1 to {MOST_ENLARGED}")
        self._switched_on_ranges()
        return self

    def _switched_on_ranges(self) -> None:
        if not 0 <= self.randaugment_layers <= MOST_LAYERS:
            raise UserError(
                f"augmentation.randaugment_layers is {self.randaugment_layers}: give 0 to {MOST_LAYERS} operations"
            )
        if not 0 <= self.randaugment_magnitude <= LARGEST_MAGNITUDE:
            raise UserError(
                f"augmentation.randaugment_magnitude is {self.randaugment_magnitude:g}: "
                f"give 0 to {LARGEST_MAGNITUDE} (10 is AutoAugment's strongest)"
            )
        if not 0 <= self.erase <= 1:
            raise UserError(f"augmentation.erase is {self.erase:g}: give a probability from 0 to 1")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            if alpha < 0:
                raise UserError(f"augmentation.{name} is {alpha:g}: give Beta's alpha, 0 or more (0 is off)")

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed with one another, which makes their targets soft."""
        return self.mixup > 0 or self.cutmix > 0
