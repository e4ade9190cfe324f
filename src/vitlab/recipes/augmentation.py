"""AugReg's training augmentations by name ("How to train your ViT?", Figure 4 and appendix)."""

from dataclasses import replace

from vitlab.errors import unknown_name
from vitlab.recipes.preprocessing import Augmentation

__all__ = ["AUGREG", "Augmentation", "augreg"]

# RandAugment layers, magnitude and Mixup's alpha.
AUGREG = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}


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
