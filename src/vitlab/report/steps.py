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

SEQUENCE_PATCHES, SEQUENCE_GAP = 10, 0.05
IMAGE_GAP = 0.3
TEXT_HEIGHT = 0.35  # below pictures
STEP_HEIGHT = 0.4


def draw_steps(model: Model, image_HWC: NDArray[np.uint8]) -> Drawing:
    """The image, its patches, the first patches of the sequence, and every step to the logits with its shape.

    Raises:
        UserError: not a Vision Transformer, or an image of another size than the model's.
    """
    vit = transformer(model, "from image to tokens")
    patches_rchwC = patch_grid(vit, image_HWC)
    steps = token_steps(vit)
    height, width = image_HWC.shape[:2]
    return Drawing(
        "steps",
        "From image to tokens",
        "How this model reads an image: it is cut into patches, each patch becomes one token, and the tokens pass "
        "through the model, with the shape after every step. Look for how much of an object fits into one patch: "
        "that is the finest detail that attention can resolve.",
        f"The image, its {vit.grid[0] * vit.grid[1]} patches apart, and a list of {len(steps)} steps from an image of "
        f"{width} by {height} pixels to {steps[-1].name} of shape {_shape(steps[-1])}.",
        _steps_figure(image_HWC, patches_rchwC, steps),
    )


def _steps_figure(image_HWC: NDArray[np.uint8], patches_rchwC: NDArray[np.uint8], steps: tuple[Step, ...]) -> Figure:
    """Image and patches at the top, below them the sequence of patches, then a line for each step."""
    rows, columns, patch_height, patch_width = patches_rchwC.shape[:4]
    height, width = image_HWC.shape[:2]
    image_width = (WIDTH - 2 * MARGIN - IMAGE_GAP) / 2
    image_height = image_width * height / width
    small_width = (WIDTH - 2 * MARGIN - (SEQUENCE_PATCHES - 1) * SEQUENCE_GAP) / SEQUENCE_PATCHES
    small_height = small_width * patch_height / patch_width
    sequence_bottom = MARGIN + STEP_HEIGHT * len(steps) + TEXT_HEIGHT
    image_bottom = sequence_bottom + small_height + TEXT_HEIGHT
    figure = new_figure(image_bottom + image_height + MARGIN)
    pictures = ((image_HWC, f"image {width} × {height}"), (_apart(patches_rchwC), f"{columns} × {rows} patches"))
    for place, (picture, text) in enumerate(pictures):
        left = MARGIN + place * (image_width + IMAGE_GAP)
        add_picture(figure, picture, left, image_bottom, image_width, image_height)
        write(figure, text, left, image_bottom - 0.2, fontsize=FONT - 2, color=QUIET)
    sequence = patches_rchwC.reshape(-1, *patches_rchwC.shape[2:])[:SEQUENCE_PATCHES]
    for place, patch_HWC in enumerate(sequence):
        left = MARGIN + place * (small_width + SEQUENCE_GAP)
        add_picture(figure, patch_HWC, left, sequence_bottom, small_width, small_height)
    text = f"the first {len(sequence)} of {rows * columns} patches in sequence, like the words of a sentence"
    write(figure, text, MARGIN, sequence_bottom - 0.2, fontsize=FONT - 2, color=QUIET)
    for number, step in enumerate(steps, start=1):
        bottom = sequence_bottom - TEXT_HEIGHT - STEP_HEIGHT * number + 0.12
        write(figure, step.name, MARGIN, bottom, fontsize=FONT - 1)
        write(figure, _shape(step), WIDTH - MARGIN, bottom, fontsize=FONT - 1, ha="right")
        write(figure, one_line(step.meaning, 84), MARGIN, bottom - 0.15, fontsize=FONT - 3, color=QUIET)
    return figure


def _shape(step: Step) -> str:
    return " × ".join(map(str, step.shape))


def _apart(patches_rchwC: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The patches at their places with transparent gaps between them: RGBA."""
    rows, columns, height, width = patches_rchwC.shape[:4]
    gap = max(1, round(max(height, width) / 6))
    sheet = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for row in range(rows):
        for column in range(columns):
            patch = sheet[row * (height + gap) :, column * (width + gap) :][:height, :width]
            patch[..., :3] = patches_rchwC[row, column] / 255
            patch[..., 3] = 1
    return sheet
