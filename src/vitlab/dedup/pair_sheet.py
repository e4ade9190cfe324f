"""A picture of pairs of images side by side, to check by eye what counts as a duplicate."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vitlab.data.sources import Source
from vitlab.datasets.describe import paste_sample

CELL = 120  # pixels a side of an image
GAP = 4  # between the two images of a pair
MARGIN = 14
CAPTION = 34
COLUMNS = 4
MOST_LETTERS = 200
TEXT_SIZE = 12
INK, FAINT, PAPER, FRAME = "#222222", "#777777", "#ffffff", "#d8d8d8"


@dataclass(frozen=True)
class Shown:
    """A pair on the sheet: two images, each as (source, index), and what is written below them."""

    left: tuple[Source, int]
    right: tuple[Source, int]
    caption: str


def pair_sheet(title: str, pairs: Sequence[Shown]) -> Image.Image:
    """The pairs in rows of four, below a title. An image that cannot be decoded is a crossed cell."""
    font = ImageFont.load_default(TEXT_SIZE)
    step_x, step_y = 2 * CELL + GAP + MARGIN, CELL + CAPTION + MARGIN
    rows = -(-len(pairs) // COLUMNS)
    columns = COLUMNS if rows > 1 else max(2, len(pairs))
    sheet = Image.new("RGB", (columns * step_x + MARGIN, rows * step_y + 2 * MARGIN + TEXT_SIZE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _fitted_text(title, sheet.width - 2 * MARGIN, font), fill=INK, font=font)
    for number, pair in enumerate(pairs):
        left, top = MARGIN + number % columns * step_x, 2 * MARGIN + TEXT_SIZE + number // columns * step_y
        draw.text((left, top + CELL + 4), _fitted_text(pair.caption, 2 * CELL + GAP, font), fill=INK, font=font)
        for x, (source, index) in ((left, pair.left), (left + CELL + GAP, pair.right)):
            draw.rectangle((x - 1, top - 1, x + CELL, top + CELL), outline=FRAME)
            paste_sample(sheet, source, index, x, top, CELL)
            draw.text((x, top + CELL + 18), _fitted_text(source.key(index), CELL, font), fill=FAINT, font=font)
    return sheet


def _fitted_text(text: str, width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Text cut at its front, where a path says least, until it fits; what a font cannot show becomes a `?`."""
    text = text[-MOST_LETTERS:].encode("latin-1", "replace").decode("latin-1")
    kept = text
    while len(kept) > 1 and font.getlength(kept) > width:
        text = text[1:]
        kept = "..." + text
    return kept
