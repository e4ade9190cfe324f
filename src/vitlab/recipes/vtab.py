"""VTAB-1k: the 19 tasks, their splits and their exceptions (Zhai et al. 2019, arXiv 1910.04867; paper: Table 9).

A split is cut from a data set's official splits in the order in which its source gives them. Tasks and cuts are those
of the benchmark's public code; `flip` and `crop` are the exceptions of BiT's appendix F, which the paper follows.
"""

from dataclasses import dataclass, replace
from typing import Literal

from vitlab.errors import UserError, unknown_name

Group = Literal["natural", "specialized", "structured"]
SplitName = Literal["train800", "val200", "train800val200", "test"]


@dataclass(frozen=True)
class Cut:
    """A range of an official split: between two percentages (rounded down), without the first `skip`.

    `first` takes only so many from there on.
    """

    split: str
    start_percent: int = 0
    stop_percent: int = 100
    skip: int = 0
    first: int | None = None

    def bounds(self, count: int) -> range:
        """The positions that are cut from a split of `count` samples.

        Raises:
            UserError: it has fewer than `first`.
        """
        start = count * self.start_percent // 100 + self.skip
        stop = count * self.stop_percent // 100
        if self.first is None:
            return range(start, max(start, stop))
        if start + self.first > stop:
            raise UserError(
                f"its {self.split} split of {count:,} images is too small: "
                f"{self.first:,} are needed from number {start:,} on"
            )
        return range(start, start + self.first)


@dataclass(frozen=True)
class Cuts:
    """Where train800 and val200 are taken from (the first 800 and 200 of these cuts), and the test split."""

    train: Cut
    validation: Cut
    test: Cut


@dataclass(frozen=True)
class VtabTask:
    """One task.

    Attributes:
        name: as `vitlab` writes it, after `vtab/`.
        label: as the paper's Table 9 writes it.
        group: natural, specialized or structured.
        classes: how many.
        test_images: how many the test split holds in the benchmark.
        cuts: where its splits are cut from.
        flip: whether training may flip images left to right.
        crop: whether training may crop at random.
    """

    name: str
    label: str
    group: Group
    classes: int
    test_images: int
    cuts: Cuts
    flip: bool = True
    crop: bool = True

    def cuts_of(self, split: SplitName) -> tuple[Cut, ...]:
        """The cuts that a split of VTAB-1k consists of, in order."""
        train800, val200 = _first(self.cuts.train, 800), _first(self.cuts.validation, 200)
        cuts: dict[SplitName, tuple[Cut, ...]] = {
            "train800": (train800,),
            "val200": (val200,),
            "train800val200": (train800, val200),
            "test": (self.cuts.test,),
        }
        return cuts[split]


def _first(cut: Cut, count: int) -> Cut:
    return replace(cut, first=count)


def _tail(percent: int, test: Cut) -> Cuts:
    """Train and validation from the official training split, divided at `percent`."""
    return Cuts(Cut("train", 0, percent), Cut("train", percent, 100), test)


def _pool(train: int, validation: int) -> Cuts:
    """All three from the only official split."""
    return Cuts(Cut("train", 0, train), Cut("train", train, validation), Cut("train", validation, 100))


TEST = Cut("test")
OFFICIAL = Cuts(Cut("train"), Cut("validation"), TEST)
CLEVR = _tail(90, Cut("validation"))
DSPRITES = _pool(80, 90)
SMALLNORB = Cuts(Cut("train"), Cut("test", 0, 50), Cut("test", 50, 100))

TASKS = (
    VtabTask("caltech101", "Caltech101", "natural", 102, 6084, _tail(90, TEST)),
    VtabTask("cifar100", "CIFAR-100", "natural", 100, 10000, _tail(90, TEST)),
    VtabTask("dtd", "DTD", "natural", 47, 1880, OFFICIAL),
    VtabTask("flowers102", "Flowers102", "natural", 102, 6149, OFFICIAL),
    VtabTask("pets", "Pets", "natural", 37, 3669, _tail(80, TEST)),
    VtabTask("sun397", "SUN397", "natural", 397, 21750, OFFICIAL),
    VtabTask("svhn", "SVHN", "natural", 10, 26032, _tail(90, TEST)),
    VtabTask("camelyon", "Patch Camelyon", "specialized", 2, 32768, OFFICIAL),
    VtabTask("eurosat", "EuroSAT", "specialized", 10, 5400, _pool(60, 80)),
    VtabTask("resisc45", "Resisc45", "specialized", 45, 6300, _pool(60, 80)),
    VtabTask("retinopathy", "Diabetic Retinopathy", "specialized", 5, 42670, OFFICIAL),
    VtabTask("clevr-count", "Clevr-Count", "structured", 8, 15000, CLEVR, crop=False),
    VtabTask("clevr-dist", "Clevr-Dist", "structured", 6, 15000, CLEVR, crop=False),
    VtabTask("dmlab", "DMLab", "structured", 6, 22735, OFFICIAL, crop=False),
    VtabTask("dsprites-loc", "dSpr-Loc", "structured", 16, 73728, DSPRITES, flip=False, crop=False),
    VtabTask("dsprites-ori", "dSpr-Ori", "structured", 16, 73728, DSPRITES, flip=False),
    VtabTask("kitti-dist", "KITTI-Dist", "structured", 4, 711, OFFICIAL, crop=False),
    VtabTask("smallnorb-azim", "sNORB-Azim", "structured", 18, 12150, SMALLNORB, flip=False),
    VtabTask("smallnorb-elev", "sNORB-Elev", "structured", 9, 12150, SMALLNORB),
)


def names() -> list[str]:
    """The tasks' names, in the order of the paper's Table 9."""
    return [task.name for task in TASKS]


def get(name: str) -> VtabTask:
    """A task by its name, with or without `vtab/`.

    Raises:
        UserError: there is no such task.
    """
    wanted = name.removeprefix("vtab/")
    for task in TASKS:
        if task.name == wanted:
            return task
    raise unknown_name("VTAB task", name, names(), listing=f"the tasks are {', '.join(names())}")


def score(accuracies: dict[str, float]) -> float:
    """VTAB's score: the unweighted mean over all 19 tasks, not over the groups' means.

    Args:
        accuracies: test accuracy of every task, by name.

    Raises:
        UserError: a task is missing or unknown.
    """
    missing = [name for name in names() if name not in accuracies]
    if missing or len(accuracies) != len(TASKS):
        raise UserError(f"VTAB's score needs exactly its 19 tasks; missing: {', '.join(missing) or 'none'}")
    return sum(accuracies[name] for name in names()) / len(TASKS)
