"""Random erasing (Zhong et al., 2020): a rectangle of noise over an image."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from vitlab.data.images import RGB

# The paper's s_l, s_h and r_1, r_2 of all its experiments.
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
ATTEMPTS = 100  # the paper has no limit; about every fourth attempt fits


@dataclass(frozen=True, eq=False)
class Erasure:
    """A rectangle and what is put there.

    Attributes:
        top, left: its first row and column.
        noise_HWC: uint8 of the rectangle's size.
    """

    top: int
    left: int
    noise_HWC: RGB


def draw_erasure(probability: float, size: tuple[int, int], rng: np.random.Generator) -> Erasure | None:
    """Draws whether an image is erased, where, and the noise (Algorithm 1 of the paper).

    Repeatedly: the area is uniform in 2 .. 40 % of the image's, height / width uniform in 0.3 .. 3.33, the upper left
    corner uniform over the image; the first rectangle that lies within the image is taken. Sides are rounded, and are
    1 pixel at least. Every value of the noise is uniform over 0 .. 255.

    Args:
        probability: of erasing, 0 to 1; at 0 nothing is drawn.
        size: height and width of the image.
        rng: the sample's own generator.

    Returns:
        None where the image stays as it is, or where no rectangle fits (images of a pixel or two).
    """
    if probability == 0 or rng.random() >= probability:
        return None
    height, width = size
    for _ in range(ATTEMPTS):
        shares = rng.random(4)
        area = (AREA[0] + (AREA[1] - AREA[0]) * shares[0]) * height * width
        aspect = ASPECT[0] + (ASPECT[1] - ASPECT[0]) * shares[1]
        erased_height = max(1, round(sqrt(area * aspect)))
        erased_width = max(1, round(sqrt(area / aspect)))
        top, left = int(height * shares[2]), int(width * shares[3])
        if top + erased_height <= height and left + erased_width <= width:
            noise_HWC = rng.integers(256, size=(erased_height, erased_width, 3), dtype=np.uint8)
            return Erasure(top, left, noise_HWC)
    return None


def erase(image_HWC: RGB, erasure: Erasure) -> RGB:
    """A copy of the image with the noise in its place."""
    height, width = erasure.noise_HWC.shape[:2]
    erased_HWC = image_HWC.copy()
    erased_HWC[erasure.top : erasure.top + height, erasure.left : erasure.left + width] = erasure.noise_HWC
    return erased_HWC
