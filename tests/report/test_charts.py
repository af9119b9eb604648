"""Figures show every extreme and every gap, and are figures that plotly accepts."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradclip.report import charts
from gradclip.report.charts import MOST_POINTS, Line, curves


def drawn(values, log=False):
    """The points of the first trace."""
    trace = curves("t", "s", [Line("a", values, marked=False)], y="y", log=log).figure["data"][0]
    return list(zip(trace["x"], trace["y"], strict=True))


@given(
    st.lists(st.integers(-999, 999).map(float) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=40),
    st.integers(8, 12),
    st.booleans(),
)
def test_thinning_keeps_ends_extremes_and_gaps(values, most, log):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "MOST_POINTS", most)
        points = drawn(values, log)
    shown = [value if math.isfinite(value) and (value > 0 or not log) else None for value in values]
    assert len(points) <= most
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert all(y == shown[x - 1] for x, y in points)
    finite, kept = ([y for y in ys if y is not None] for ys in (shown, [y for _, y in points]))
    if finite:
        assert (min(kept), max(kept)) == (min(finite), max(finite))
    assert any(y is None for _, y in points) == (None in shown)
    if values:
        assert (points[0][0], points[-1][0]) == (1, len(values))


def test_thinning_keeps_a_single_peak_dip_and_gap():
    values = [0.0] * 10_000
    values[1234], values[4321], values[7777] = 9.0, -9.0, math.nan
    points = dict(drawn(values))
    assert len(points) <= MOST_POINTS
    assert (points[1235], points[4322], points[7778]) == (9.0, -9.0, None)


def test_a_long_line_becomes_a_short_one():
    chart = curves("t", "s", [Line("a", [math.sin(i) for i in range(100_000)])], y="y")
    assert len(chart.figure["data"][0]["x"]) <= MOST_POINTS


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 19], "linear"),
        ([1, 20], "log"),
        ([0, 1000], "linear"),
        ([-1, 1000], "linear"),
        ([math.nan], "linear"),
        ([], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_the_range_asks_for_it(values, scale):
    chart = curves("t", "s", [Line("a", values)], y="y")
    assert chart.figure["layout"]["yaxis"]["type"] == scale


def test_a_gap_is_a_gap_and_marked_before_it():
    chart = curves("t", "s", [Line("a", [1.0, 2.0, math.nan, math.inf, 3.0, math.nan])], y="y")
    line, marks = chart.figure["data"]
    assert line["y"] == [1.0, 2.0, None, None, 3.0, None]
    assert line["connectgaps"] is False
    assert (marks["x"], marks["y"]) == ([2, 5], [2.0, 3.0])
    assert marks["name"] == "a: no finite value after this"


def test_smoothing_draws_the_steps_behind_their_mean():
    chart = curves("t", "s", [Line("a", [1.0, 3.0, 5.0, 7.0])], y="y", smooth=2)
    steps, mean = chart.figure["data"]
    assert (steps["y"], steps["showlegend"]) == ([1.0, 3.0, 5.0, 7.0], False)
    assert mean["y"] == [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("values", [[], [math.nan, math.inf], [0.0, 0.0], [1e-300, 1e300], [2.0]])
def test_plotly_accepts_every_figure(values):
    for log in (True, False):
        go.Figure(curves("t", "s", [Line("a", values)], y="y", log=log, smooth=2).figure)
