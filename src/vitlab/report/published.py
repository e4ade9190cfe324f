"""The paper's numbers, for comparison (Dosovitskiy et al. 2021, Tables 2 and 6)."""

from dataclasses import dataclass

MARK = "paper"
TRANSFER = ("ImageNet", "ReaL", "CIFAR-10", "CIFAR-100", "Pets", "Flowers")
# By the names of the data sets in the catalogue.
CATALOG = dict(zip(("imagenet", "imagenet-real", "cifar10", "cifar100", "pets", "flowers"), TRANSFER, strict=True))


@dataclass(frozen=True)
class Scaling:
    """A row of Table 6: pretrained on JFT; accuracies in percent in the order of `TRANSFER`."""

    model: str
    epochs: int
    accuracies: tuple[float, ...]
    exaflops: int

    @property
    def family(self) -> str:
        """The kind of model: "ViT", "ResNet" or "hybrid"."""
        if self.model.startswith("BiT"):
            return "ResNet"
        return "hybrid" if "+" in self.model else "ViT"

    @property
    def imagenet(self) -> float:
        """ImageNet top-1."""
        return self.accuracies[0]

    @property
    def average(self) -> float:
        """Mean over five data sets, ReaL left out (Figure 5, left)."""
        five = [value for name, value in zip(TRANSFER, self.accuracies, strict=True) if name != "ReaL"]
        return sum(five) / len(five)


TABLE_6 = (
    Scaling("ViT-B/32", 7, (80.73, 86.27, 98.61, 90.49, 93.40, 99.27), 55),
    Scaling("ViT-B/16", 7, (84.15, 88.85, 99.00, 91.87, 95.80, 99.56), 224),
    Scaling("ViT-L/32", 7, (84.37, 88.28, 99.19, 92.52, 95.83, 99.45), 196),
    Scaling("ViT-L/16", 7, (86.30, 89.43, 99.38, 93.46, 96.81, 99.66), 783),
    Scaling("ViT-L/16", 14, (87.12, 89.99, 99.38, 94.04, 97.11, 99.56), 1567),
    Scaling("ViT-H/14", 14, (88.08, 90.36, 99.50, 94.71, 97.11, 99.71), 4262),
    Scaling("BiT-R50x1", 7, (77.54, 84.56, 97.67, 86.07, 91.11, 94.26), 50),
    Scaling("BiT-R50x2", 7, (82.12, 87.94, 98.29, 89.20, 93.43, 97.02), 199),
    Scaling("BiT-R101x1", 7, (80.67, 87.07, 98.48, 89.17, 94.08, 95.95), 96),
    Scaling("BiT-R152x1", 7, (81.88, 87.96, 98.82, 90.22, 94.17, 96.94), 141),
    Scaling("BiT-R152x2", 7, (84.97, 89.69, 99.06, 92.05, 95.37, 98.62), 563),
    Scaling("BiT-R152x2", 14, (85.56, 89.89, 99.24, 91.92, 95.75, 98.75), 1126),
    Scaling("BiT-R200x3", 14, (87.22, 90.15, 99.34, 93.53, 96.32, 99.04), 3306),
    Scaling("R50+ViT-B/32", 7, (84.90, 89.15, 99.01, 92.24, 95.75, 99.46), 106),
    Scaling("R50+ViT-B/16", 7, (85.58, 89.65, 99.14, 92.63, 96.65, 99.40), 274),
    Scaling("R50+ViT-L/32", 7, (85.68, 89.04, 99.24, 92.93, 96.97, 99.43), 246),
    Scaling("R50+ViT-L/16", 7, (86.60, 89.72, 99.18, 93.64, 97.03, 99.40), 859),
    Scaling("R50+ViT-L/16", 14, (87.12, 89.76, 99.31, 93.89, 97.36, 99.11), 1668),
)


@dataclass(frozen=True)
class StateOfTheArt:
    """A column of Table 2: accuracies in percent, mean and standard deviation of three runs, as printed."""

    model: str
    accuracies: dict[str, str]
    core_days: str


_TABLE_2 = (
    ("ViT-H/14, JFT", "88.55 ± 0.04", "90.72 ± 0.05", "99.50 ± 0.06", "94.55 ± 0.04", "97.56 ± 0.03", "99.68 ± 0.02",
     "77.63 ± 0.23", "2.5k"),
    ("ViT-L/16, JFT", "87.76 ± 0.03", "90.54 ± 0.03", "99.42 ± 0.03", "93.90 ± 0.05", "97.32 ± 0.11", "99.74 ± 0.00",
     "76.28 ± 0.46", "0.68k"),
    ("ViT-L/16, I21k", "85.30 ± 0.02", "88.62 ± 0.05", "99.15 ± 0.03", "93.25 ± 0.05", "94.67 ± 0.15", "99.61 ± 0.02",
     "72.72 ± 0.21", "0.23k"),
    ("BiT-L R152x4, JFT", "87.54 ± 0.02", "90.54", "99.37 ± 0.06", "93.51 ± 0.08", "96.62 ± 0.23", "99.63 ± 0.03",
     "76.29 ± 1.70", "9.9k"),
)  # fmt: skip
TABLE_2 = tuple(
    StateOfTheArt(model, dict(zip((*TRANSFER, "VTAB"), accuracies, strict=True)), core_days)
    for model, *accuracies, core_days in _TABLE_2
)
