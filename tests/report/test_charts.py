"""Curves: what metrics.jsonl says is what the drawing shows."""

import json
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitlab.errors import UserError
from vitlab.report import charts
from vitlab.report.charts import Series, charts_of, line_chart, number_text, series_of, thinned


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


def test_each_number_becomes_a_series_over_steps():
    text = lines({"step": 2, "loss": 2.0, "seconds": 1.5}, {"step": 4, "loss": 1.5}, {"step": 4, "test_top1": 0.5})
    assert series_of(text, "m") == (Series("loss", (2, 4), (2.0, 1.5)), Series("test_top1", (4,), (0.5,)))


def test_steps_rise_and_the_last_word_counts():
    text = lines({"step": 4, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 4, "loss": 0.5})
    assert series_of(text, "m") == (Series("loss", (2, 4), (2.0, 0.5)),)


def test_what_is_no_number_is_left_out():
    text = lines({"step": 1, "loss": math.nan, "a": "text", "b": True, "c": None, "d": math.inf, "e": 10**400, "f": 1})
    assert series_of(text, "m") == (Series("f", (1,), (1.0,)),)
    assert series_of("", "m") == ()
    assert series_of("\n\n", "m") == ()


def test_a_torn_last_line_is_forgiven_and_nothing_else():
    good = lines({"step": 1, "loss": 1.0})
    assert series_of(good + '{"step": 2, "lo', "m") == series_of(good, "m")
    with pytest.raises(UserError, match=r"m\.jsonl, line 2 is not valid JSON"):
        series_of(good + '{"step": 2, "lo\n' + good, "m.jsonl")
    for bad in ("[1]", '"step"', '{"loss": 1}', '{"step": "1"}', '{"step": NaN}', "1" * 5000, "[" * 100_000):
        with pytest.raises(UserError, match=r"m, line 1 is"):
            series_of(bad + "\n", "m")


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_thinning_keeps_few_points_and_the_mean_of_all(values):
    series = Series("loss", tuple(map(float, range(len(values)))), tuple(values))
    few = thinned(series, 50)
    assert len(few.steps) <= 50
    assert few.steps == tuple(sorted(few.steps))
    assert min(values) - 1e-6 <= min(few.values)
    assert max(few.values) <= max(values) + 1e-6
    if len(values) <= 50:
        assert few == series
    if len(values) % 50 == 0:
        assert math.isclose(math.fsum(few.values) / len(few.values), math.fsum(values) / len(values), abs_tol=1e-6)


def test_a_long_run_is_drawn_with_few_points():
    values = tuple(math.sin(step / 1000) for step in range(10_000))
    chart = line_chart("Loss", [Series("loss", tuple(map(float, range(10_000))), values)])
    assert 200 <= len(drawn_points(chart)) <= 400
    assert chart.legend[0][2] == number_text(values[-1]), "the last value is told as it is"


def drawn_points(chart, line=0):
    root = ElementTree.fromstring(chart.svg)
    polyline = [element for element in root if element.tag == "polyline"][line]
    return np.array([[float(number) for number in pair.split(",")] for pair in polyline.get("points").split()])


def ticks(chart):
    """(value, height) of the labels on the vertical axis."""
    root = ElementTree.fromstring(chart.svg)
    texts = [element for element in root if element.get("text-anchor") == "end"]
    return [
        (float(text.text.replace(",", "").replace(" %", "")) / (100 if "%" in text.text else 1), float(text.get("y")))
        for text in texts
    ]


finite = st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-7)


@given(st.lists(finite, min_size=1, max_size=60), st.sampled_from(["Loss", "Other"]))
def test_a_point_is_where_the_axis_says(values, title):
    """Reading the drawing by its own labels gives the values back."""
    chart = line_chart(title, [Series("loss", tuple(range(1, len(values) + 1)), tuple(values))])
    labels = ticks(chart)
    assert 3 <= len(labels) <= 7
    assert len({value for value, _ in labels}) == len(labels), "no two labels read the same"
    (low, bottom), (high, top) = labels[0], labels[-1]
    heights = drawn_points(chart)[:, 1]
    assert ((heights <= bottom + 0.06) & (heights >= top - 0.06)).all(), "the curve stays inside"
    read = low + (heights - bottom) / (top - bottom) * (high - low)
    one_pixel = (high - low) / (bottom - top)
    assert np.abs(read - np.array(values)).max() <= one_pixel


def test_steps_go_from_left_to_right_between_the_axes():
    chart = line_chart("Loss", [Series("loss", (0.0, 500.0, 1000.0), (1.0, 2.0, 3.0))])
    x = drawn_points(chart)[:, 0]
    assert x[0] == charts.LEFT
    assert x[1] == pytest.approx((charts.LEFT + charts.RIGHT) / 2)
    assert x[2] == charts.RIGHT


def test_two_lines_share_axes_and_have_names():
    chart = line_chart("Loss", [Series("loss", (1.0, 2.0), (4.0, 2.0)), Series("test_loss", (2.0,), (4.0,))])
    assert drawn_points(chart, 1)[0, 1] == drawn_points(chart, 0)[0, 1]
    assert chart.legend == ((0, "train loss", "2"), (1, "test loss", "4"))
    assert 'aria-label="Loss over 2 steps: train loss 2, test loss 4"' in chart.svg


def test_metrics_are_grouped_as_people_read_them():
    names = ["loss", "accuracy", "learning_rate", "images_per_second", "test_top1", "test_loss", "memory"]
    drawn = charts_of([Series(name, (1.0,), (0.5,)) for name in names])
    assert [chart.title for chart in drawn] == ["Loss", "Accuracy", "Learning rate", "Throughput (images/s)", "Memory"]
    assert [name for _, name, _ in drawn[1].legend] == ["train accuracy", "test top-1"]
    assert drawn[1].legend[1][2] == "50.0 %"
    assert charts_of([]) == []


def test_speed_and_rate_start_at_zero_so_that_noise_looks_small():
    chart = line_chart("Images per second", [Series("images_per_second", (1.0, 2.0), (1000.0, 990.0))])
    assert ticks(chart)[0][0] == 0


def test_names_of_metrics_are_escaped():
    (chart,) = charts_of([Series('<script>"&', (1.0,), (1.0,))])
    assert "<script>" not in chart.svg
    ElementTree.fromstring(chart.svg)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.42861, "0.4286"),
        (867.2, "867.2"),
        (12345.6, "12,346"),
        (1e-5, "1e-5"),
        (2.5e7, "2.5e7"),
        (-3.0, "-3"),
    ],
)
def test_numbers_are_short(value, text):
    assert number_text(value) == text
