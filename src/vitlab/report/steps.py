"""How an image becomes tokens, drawn step by step with the shapes (paper: Figure 1).

Shapes: r c rows and columns of patches, h w height and width of a patch; H W C of images: height, width, colours.
"""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitlab.inspection.patches import Step, patch_grid, token_steps
from vitlab.inspection.subject import transformer
from vitlab.models.build import Model
from vitlab.report.canvas import FONT, MARGIN, QUIET, WIDTH, Drawing, add_picture, new_figure, one_line, write

MOST_IN_ROW = 10  # patches of the sequence
LINE = 0.4


def draw_steps(model: Model, image_HWC: NDArray[np.uint8]) -> Drawing:
    """The image, its patches, the beginning of their sequence, and every step to the logits with its shape.

    Raises:
        UserError: not a Vision Transformer, or an image of another size than the model's.
    """
    vit = transformer(model, "from image to tokens")
    patches_rchwC = patch_grid(vit, image_HWC)
    steps = token_steps(vit)
    rows, columns = vit.grid
    height, width = image_HWC.shape[:2]
    tile = (WIDTH - 2 * MARGIN - 0.3) / 2
    tall = tile * height / width
    small = (WIDTH - 2 * MARGIN - (MOST_IN_ROW - 1) * 0.05) / MOST_IN_ROW
    strip = small * patches_rchwC.shape[2] / patches_rchwC.shape[3]
    total = 2 * MARGIN + tall + 0.35 + strip + 0.35 + LINE * len(steps)
    figure = new_figure(total)
    top = total - MARGIN
    add_picture(figure, image_HWC, MARGIN, top - tall, tile, tall)
    add_picture(figure, _apart(patches_rchwC), MARGIN + tile + 0.3, top - tall, tile, tall)
    write(figure, f"image {width} × {height}", MARGIN, top - tall - 0.2, fontsize=FONT - 2, color=QUIET)
    said = f"{columns} × {rows} patches"
    write(figure, said, MARGIN + tile + 0.3, top - tall - 0.2, fontsize=FONT - 2, color=QUIET)
    sequence = patches_rchwC.reshape(-1, *patches_rchwC.shape[2:])[:MOST_IN_ROW]
    bottom = top - tall - 0.35 - strip
    for place, patch_HWC in enumerate(sequence):
        add_picture(figure, patch_HWC, MARGIN + place * (small + 0.05), bottom, small, strip)
    said = f"the first {len(sequence)} of {rows * columns} patches in a row: the words of this sentence"
    write(figure, said, MARGIN, bottom - 0.2, fontsize=FONT - 2, color=QUIET)
    for number, step in enumerate(steps, start=1):
        _line(step, figure, bottom - 0.35 - LINE * number + 0.12)
    last = steps[-1]
    return Drawing(
        "steps",
        "From image to tokens",
        "How this model reads an image: cut into patches, each patch one token, and what becomes of the tokens, with "
        "the shape after every step. Look for how much of a thing fits into one patch, for that is the finest detail "
        "that attention can point at.",
        f"The image, its {rows * columns} patches apart, and a list of {len(steps)} steps from an image of "
        f"{width} by {height} pixels to {last.name} of shape {_shape(last)}.",
        figure,
    )


def _line(step: Step, figure: Figure, bottom: float) -> None:
    write(figure, step.name, MARGIN, bottom, fontsize=FONT - 1)
    write(figure, _shape(step), WIDTH - MARGIN, bottom, fontsize=FONT - 1, ha="right")
    write(figure, one_line(step.meaning, 84), MARGIN, bottom - 0.15, fontsize=FONT - 3, color=QUIET)


def _shape(step: Step) -> str:
    return " × ".join(map(str, step.shape))


def _apart(patches_rchwC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The patches at their places with gaps between them, which are transparent: RGBA."""
    rows, columns, height, width = patches_rchwC.shape[:4]
    gap = max(1, round(max(height, width) / 6))
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for row in range(rows):
        for column in range(columns):
            part = sheet[row * (height + gap) :, column * (width + gap) :][:height, :width]
            part[..., :3] = patches_rchwC[row, column] / 255
            part[..., 3] = 1
    return sheet
