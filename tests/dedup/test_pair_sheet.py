"""The sheet shows both images of every pair, and what cannot be shown as a cross."""

import numpy as np

from data.planted import MemorySource, png
from vitlab.dedup.pair_sheet import CELL, GAP, MARGIN, TEXT_SIZE, Shown, pair_sheet

RED, GREEN = (255, 0, 0), (0, 200, 0)
LEFT, TOP = MARGIN, 2 * MARGIN + TEXT_SIZE


def _flat(colour, height=30, width=30):
    return png(np.full((height, width, 3), colour, np.uint8))


def test_left_and_right_are_where_they_belong():
    source = MemorySource("two", [_flat(RED), _flat(GREEN, 10, 40)])
    sheet = pair_sheet("a title", [Shown((source, 0), (source, 1), "near 0.50")] * 5)
    step_x, step_y = 2 * CELL + GAP + MARGIN, sheet.height - TOP
    for number in range(5):
        x, y = LEFT + number % 4 * step_x, TOP + number // 4 * (step_y // 2)
        assert sheet.getpixel((x + CELL // 2, y + CELL // 2)) == RED
        assert sheet.getpixel((x + CELL + GAP + CELL // 2, y + CELL // 2)) == GREEN
        assert sheet.getpixel((x + CELL + GAP + CELL // 2, y + 5)) == (255, 255, 255)  # the wide one is not stretched


def test_an_unreadable_image_is_crossed_out():
    source = MemorySource("two", [b"broken", _flat(GREEN)])
    sheet = pair_sheet("a title", [Shown((source, 0), (source, 1), "file")])
    assert sheet.getpixel((LEFT + CELL // 2, TOP + CELL // 2)) == RED
    assert sheet.getpixel((LEFT + CELL // 2, TOP + 5)) == (255, 255, 255)


def test_long_and_foreign_names_do_not_break_it():
    class Named(MemorySource):
        def key(self, index):
            return "\u732b\udcff/" * 400

    source = Named("two", [_flat(RED), _flat(GREEN)])
    plain = pair_sheet("t", [Shown((MemorySource("two", source.encoded), 0), (source, 1), "x")])
    assert pair_sheet("t" * 1000, [Shown((source, 0), (source, 1), "x" * 1000)]).size == plain.size
