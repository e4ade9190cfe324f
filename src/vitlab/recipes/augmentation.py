"""How training images are varied before they are seen: the value that a recipe holds (paper: 4.1, B.1.1)."""

from dataclasses import replace
from typing import Literal, Self

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from vitlab.errors import UserError, unknown_name
from vitlab.recipes.validation import one_line_errors

Crop = Literal["none", "inception", "pad", "random"]
Where = Literal["workers", "device"]

# RandAugment layers, magnitude and Mixup's alpha of "How to train your ViT?" (AugReg: Figure 4 and appendix).
AUGREG = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}
LARGEST_MAGNITUDE = 30  # RandAugment's paper searches magnitudes up to 30
MOST_LAYERS = 16
MOST_ENLARGED = 4  # so that an image of a recipe does not fill the memory


@one_line_errors
@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Augmentation:
    """Training augmentation: a crop, a mirror image in half of the cases, then what is switched on.

    The order is crop, flip, RandAugment, random erasing for each image, and then Mixup or CutMix over the batch.

    Attributes:
        crop: "inception" cuts a random box and resizes it to the model's input, as the paper's pretraining
            does; "pad" prepares the image as for evaluation, adds `pad` black pixels on every side and cuts
            the model's input out at a random place, which suits images of 28 x 28 pixels; "random" resizes
            the image to `enlarge` times the input's sides, whatever its proportions, and cuts the input out
            at a random place, as BiT does; "none" only prepares.
        area: smallest and largest share of the image that an inception crop keeps.
        aspect: smallest and largest width / height of an inception crop.
        pad: black pixels on every side before a pad crop.
        enlarge: the sides before a random crop over those of the model's input; BiT's 448 / 384 is 7 / 6.
        flip: whether half of the images are mirrored left to right.
        randaugment_layers: operations of RandAugment after one another; 0 is none.
        randaugment_magnitude: the strength m of each on TensorFlow's scale, on which 10 is AutoAugment's strongest;
            arguments grow linearly beyond (`vitlab.data.augmentation.randaugment` has the formulas). AugReg uses 0
            to 20.
        mixup: alpha of Mixup's Beta(alpha, alpha); 0 is no Mixup.
        cutmix: alpha of CutMix's Beta(alpha, alpha); 0 is no CutMix. With both on, each batch gets either one with
            even odds.
        erase: probability that a rectangle of an image is replaced by noise.
        where: "workers" varies each image right after decoding; "device" leaves flip, RandAugment and erasing to the
            device that trains, batch by batch, with the same draws.
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


def augreg(name: str, base: Augmentation | None = None) -> Augmentation:
    """AugReg's augmentation of that name: "none", "light1", "light2", "medium1", "medium2", "strong1", "strong2".

    The paper's figures call the last two "heavy1" and "heavy2".

    Args:
        name: as above.
        base: what it is laid over; AugReg's own is Inception crop and flip.

    Raises:
        UserError: there is no such name.
    """
    if name not in AUGREG:
        raise unknown_name("AugReg augmentation", name, list(AUGREG), listing=f"they are {', '.join(AUGREG)}")
    layers, magnitude, alpha = AUGREG[name]
    base = Augmentation(crop="inception") if base is None else base
    return replace(base, randaugment_layers=layers, randaugment_magnitude=float(magnitude), mixup=alpha)
