"""Progress: a bar on a terminal, lines some seconds apart elsewhere, nothing from the other processes."""

import time

import pytest
from rich.console import Console

from vitlab import progress
from vitlab.progress import SECONDS_BETWEEN_LINES, Progress, duration, show_progress


class _Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = _Clock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    return made


def _lines(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()


def test_lines_are_some_seconds_apart_and_estimate_the_time_left(capsys, clock):
    with show_progress("packing", 1000) as shown:
        for done in range(0, 51, 2):
            shown.update(done)
            clock.now += 1
    assert _lines(capsys) == ["packing: 20/1,000  8 min left", "packing: 40/1,000  8 min left"]
    assert SECONDS_BETWEEN_LINES == 10


def test_what_an_earlier_run_did_does_not_shorten_the_estimate(capsys, clock):
    with show_progress("images", 1000) as shown:
        shown.update(900)
        clock.now += 20
        shown.update(910)
    assert _lines(capsys) == ["images: 910/1,000  3 min left"]


def test_a_first_line_without_an_estimate(capsys, clock):
    with show_progress("images", 10) as shown:
        clock.now += 30
        shown.update(1)
    assert _lines(capsys) == ["images: 1/10"]


def test_the_last_numbers_are_always_shown_and_an_empty_end_is_not(capsys, clock):
    with show_progress("pretrain", 2) as shown:
        shown.update(1, "loss 2.000")
        clock.now += 1
        shown.update(2, "loss 1.000")
    with show_progress("packing", 1) as shown:
        shown.update(1)
    assert _lines(capsys) == ["pretrain: 2/2  loss 1.000  0 s left"]


def test_a_terminal_has_a_bar_and_lines_above_it(capsys, monkeypatch):
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(stderr=stderr, force_terminal=True, width=120))
    with show_progress("pretrain", 40) as shown:
        shown.update(40, "loss 1.000")
        shown.print("[bold]resumed[/bold]")
    drawn = capsys.readouterr().err
    assert all(text in drawn for text in ("pretrain", "40/40", "loss 1.000", "[bold]resumed[/bold]"))


def test_other_processes_show_nothing(capsys):
    shown = Progress()
    shown.update(1, "loss 1.000")
    shown.print("line")
    assert _lines(capsys) == []


@pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
