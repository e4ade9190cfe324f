"""How sure an accuracy is: intervals for a share, and for a mean over seeds."""

import math
from collections.abc import Sequence

NORMAL_95 = 1.959963984540054
# The 97.5 % point of Student's t by degrees of freedom; beyond the last one the normal's is close enough.
STUDENT_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip


def wilson(right: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share of `right` out of `images` (Wilson 1927).

    It stays within [0, 1] and is honest for few images too. Of no image at all nothing is known: (0, 1).
    """
    assert 0 <= right <= images
    if not images:
        return 0.0, 1.0
    share, square = right / images, NORMAL_95**2
    middle = (share + square / (2 * images)) / (1 + square / images)
    half = NORMAL_95 / (1 + square / images) * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    return (0.0 if right == 0 else middle - half), (1.0 if right == images else middle + half)


def student_half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean over few values, by Student's t; 0 for a single value."""
    count = len(values)
    if count < 2:
        return 0.0
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    factor = STUDENT_95[count - 2] if count - 2 < len(STUDENT_95) else NORMAL_95
    return factor * deviation / math.sqrt(count)
