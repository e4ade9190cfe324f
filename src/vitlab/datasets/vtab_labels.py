"""VTAB's label rules, as functions of a data set's own annotations (Zhai et al. 2019; values of its public code)."""

from collections.abc import Sequence

CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0  # metres: beyond the last bin's start, so "no vehicle" is the last class
VEHICLES = ("Car", "Van", "Truck")


def clevr_count(objects: int) -> int:
    """Clevr-Count: scenes hold 3 to 10 objects, so 8 classes."""
    return objects - 3


def bin_of(value: float, starts: Sequence[float]) -> int:
    """The last bin that starts below `value`; a value on a start belongs to the bin before."""
    return max(number for number, start in enumerate(starts) if start < value)


def clevr_distance(depths: Sequence[float]) -> int:
    """Clevr-Dist: the bin of the nearest object's depth (the third of its pixel coordinates), 6 classes."""
    return bin_of(min(depths), CLEVR_DISTANCES)


def kitti_distance(objects: Sequence[tuple[str, float]]) -> int:
    """KITTI-Dist: the bin of the nearest vehicle's z, 4 classes of which the last is "no vehicle".

    Args:
        objects: each annotated object's type, and its z in metres from the camera.
    """
    return bin_of(min([z for kind, z in objects if kind in VEHICLES] + [NO_VEHICLE]), KITTI_DISTANCES)


def grouped(label: int, values: int, classes: int) -> int:
    """Neighbouring values of an attribute as one class: floor(label / (values / classes)).

    dSpr-Loc groups 32 positions, dSpr-Ori 40 orientations, each into 16 classes.
    """
    return label * classes // values


def smallnorb_azimuth(stored: int) -> int:
    """sNORB-Azim: stored as 0, 2, .. 34 (twenties of degrees), 18 classes."""
    return stored // 2
