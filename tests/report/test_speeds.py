"""The picture of `vitlab bench inference` can be read: numbers on both axes, and every line to be seen."""

from itertools import pairwise

import numpy as np
import pytest

from vitlab.evaluation.speed import Speed
from vitlab.report.plots import COLOURS, log_ticks, speed_figure

PEAKS = {("ViT-Ti/16", 32): 543.3, ("ViT-Ti/16", 64): 290.6, ("ViT-Ti/32", 32): 654.5, ("ViT-Ti/32", 64): 391.5}


def _drawn(peaks, batch=4):
    figure = speed_figure([Speed(*key, {batch: peak}, batch, None, 9) for key, peak in peaks.items()], "a device")
    figure.canvas.draw()
    return figure


def _numbers(axes):
    low, high = axes.get_ylim()
    texts = [label.get_text() for label in axes.get_yticklabels()]
    numbers = [float(text.replace(",", "")) for text in texts]
    assert all(low <= number <= high for number in numbers)
    return numbers


@pytest.mark.parametrize("factor", [1, 17, 200])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1, 3, 6])
def test_the_axis_has_numbers_however_near_the_speeds_are(factor, spread):
    axes = _drawn({key: factor * peak**spread for key, peak in PEAKS.items()}).axes[0]
    assert 2 <= len(_numbers(axes)) <= 8


def test_speeds_within_a_decade():
    assert _numbers(_drawn(PEAKS).axes[0]) == [300, 400, 500, 600, 700]


@pytest.mark.parametrize("batch", [1, 4, 5, 4096])
def test_equal_batches_have_numbers_around_them(batch):
    numbers = _numbers(_drawn(PEAKS, batch).axes[1])
    assert min(numbers) < batch < max(numbers)


def test_lines_that_coincide_can_be_seen():
    peaks = {(f"model {number}", size): 100.0 for number in range(len(COLOURS)) for size in (32, 64)}
    figure = _drawn(peaks)
    for axes in figure.axes:
        lines = axes.get_lines()
        assert len(lines) == len(COLOURS)
        for below, above in pairwise(lines):
            assert above.get_linewidth() < below.get_linewidth()
            assert above.get_markersize() < below.get_markersize()
            assert (above.get_marker(), above.get_linestyle()) != (below.get_marker(), below.get_linestyle())
            assert above.get_markerfacecolor() == "none"
    # Of two lines at the same place both colours are in the picture.
    figure = _drawn(dict.fromkeys(PEAKS, 100.0))
    pixels_N4 = np.asarray(figure.canvas.buffer_rgba())[: int(figure.bbox.height * 0.4)].reshape(-1, 4)
    for colour in COLOURS[:2]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(pixels_N4[:, :3].astype(int) - wanted).max(1) < 3).sum() > 500


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(1, 10, [1, 2, 5, 10]), (2, 2000, [10, 100, 1000]), (94, 140, [100, 110, 120, 130, 140])]
)
def test_ticks_are_round(low, high, ticks):
    assert log_ticks(low, high) == ticks


def test_nothing_that_fits_is_drawn_empty():
    figure = speed_figure([Speed("ViT-Ti/16", 32, {}, 0, 1, 0)], "a device")
    figure.canvas.draw()
    assert [len(line.get_xdata()) for line in figure.axes[0].get_lines()] == [0]
