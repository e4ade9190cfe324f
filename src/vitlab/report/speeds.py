"""Images a second and largest batches over the image size (paper: Figure 12)."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from vitlab.evaluation.speed import Speed
from vitlab.report.canvas import FONT, INK, add_axes, new_figure, write

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7f7f7a", "#e69f00", "#26262b")


def speed_figure(measured: Sequence[Speed], device: str) -> Figure:
    """Peak images a second, and the largest batch, over the image size; a line for each model."""
    names = list(dict.fromkeys(speed.model for speed in measured))
    figure = new_figure(7.55 + 0.22 * -(-len(names) // 2))
    height = figure.get_size_inches()[1]
    panels = (("Images a second, at the best batch size", "peak"), ("Largest batch that was measured", "largest"))
    for place, (title, what) in enumerate(panels):
        axes = add_axes(figure, 0.75, height - 3.5 - 3.35 * place, 3.85, 2.6)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.grid(visible=True, color="#dddcd6", linewidth=0.6)
        for number, name in enumerate(names):
            own = [speed for speed in measured if speed.model == name and speed.images_per_second]
            heights = [speed.peak if what == "peak" else speed.largest_batch for speed in own]
            axes.plot(
                [speed.image_size for speed in own], heights, marker="o", markersize=4.5, linewidth=1.4,
                color=COLOURS[number % len(COLOURS)], label=name,
            )  # fmt: skip
        sizes = sorted({speed.image_size for speed in measured})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title(title, fontsize=FONT, color=INK, loc="left")
        if place == 1:
            axes.set_xlabel("image size (pixels)", fontsize=FONT - 1, color=INK)
            axes.legend(
                loc="upper center",
                bbox_to_anchor=(0.45, -0.2),
                ncols=2,
                fontsize=FONT - 2,
                frameon=False,
                labelcolor=INK,
            )
    write(figure, f"Inference on {device}"[:48], 0.2, height - 0.4, fontsize=FONT + 1)
    return figure
