"""Accuracy against compute, as in the paper's Figure 5: exaFLOPs by vitlab's arithmetic, accuracies by the paper."""

from matplotlib.figure import Figure

from vitlab.recipes import cost, zoo
from vitlab.report.canvas import BLUE, FONT, INK, PANEL, QUIET, add_axes, new_figure, write
from vitlab.report.published import TABLE_6, Scaling

JFT_IMAGES = 303_000_000
STYLES = {"ViT": ("o", BLUE), "hybrid": ("P", "#d55e00"), "ResNet": ("s", "#7f7f7a")}
LABELS = {"ViT": "Transformer (ViT)", "hybrid": "Hybrid", "ResNet": "ResNet (BiT)"}
PANELS = (("Mean of 5 data sets", "average"), ("ImageNet", "imagenet"))


def own_exaflops(row: Scaling) -> float:
    """A row's compute by this package's arithmetic."""
    return cost.exaflops(zoo.get(row.model), row.epochs, JFT_IMAGES)


def figure_5() -> Figure:
    """Transfer accuracy over pretraining compute, for the 18 models of Table 6."""
    figure = new_figure(7.65)
    for number, (title, measure) in enumerate(PANELS):
        axes = add_axes(figure, 0.65, 4.2 - 3.4 * number, 3.95, 2.75)
        axes.set_xscale("log")
        axes.grid(visible=True, color="#dddcd6", linewidth=0.6)
        axes.set_axisbelow(True)
        for family, (marker, colour) in STYLES.items():
            rows = [row for row in TABLE_6 if row.family == family]
            heights = [row.average if measure == "average" else row.imagenet for row in rows]
            axes.scatter(
                [own_exaflops(row) for row in rows], heights, s=42, marker=marker, color=colour,
                edgecolors=PANEL, linewidths=0.6, label=LABELS[family],
            )  # fmt: skip
        axes.set_ylabel("accuracy (%)", fontsize=FONT - 1, color=INK)
        axes.set_title(title, fontsize=FONT, color=INK, loc="left")
        if number == 0:
            axes.legend(loc="lower right", fontsize=FONT - 2, frameon=False, labelcolor=INK)
        else:
            axes.set_xlabel("pretraining compute (exaFLOPs)", fontsize=FONT - 1, color=INK)
    write(figure, "Accuracy after transfer against pretraining compute", 0.2, 7.33, fontsize=FONT + 1)
    write(figure, "accuracy: the paper's Table 6; compute: vitlab cost", 0.2, 0.08, fontsize=FONT - 3, color=QUIET)
    return figure
