"""Every lab has a page: a verdict from its numbers, a table, a picture with a sentence, whatever became of its runs."""

from __future__ import annotations

import json
import math

import pytest

from gradclip.labs import LABS, load
from gradclip.labs.lab import Arm, Curves
from gradclip.labs.page import page, summary
from gradclip.labs.pictures import Path, against, surface
from gradclip.labs.verdict import verdict
from gradclip.report.charts import COLOURS, Line
from gradclip.report.page import render
from tests.labs.support import UNCLIPPED, runs

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture(params=LABS)
def lab(request):
    return load(request.param)


def some(arms):
    """A few arms, with and without clipping."""
    return [*arms[:6], arms[-1]]


def test_the_page_holds_verdict_table_and_pictures(lab):
    done = runs(lab, lab.arms_with(), steps=2)
    laid_out = page(lab, done, command="gradclip lab", seed=0)
    assert laid_out.verdict == verdict(lab, done)
    assert laid_out.tables[0].rows
    assert {len(row) for row in laid_out.tables[0].rows} == {len(laid_out.tables[0].columns)}
    assert laid_out.charts
    assert all(chart.see.endswith(".") for chart in laid_out.charts)
    assert laid_out.title in render(laid_out)


@pytest.mark.parametrize("changed", [{"clip": "agc:0.01"}, {"lr": 1e30}], ids=str)
def test_other_arms_have_a_page_too(lab, changed):
    done = runs(lab, some(lab.arms_with(**changed)), steps=3)
    assert render(page(lab, done, command="gradclip lab", seed=0))


@pytest.mark.parametrize("clips", [True, False])
def test_a_page_needs_neither_kind_of_arm(lab, clips):
    arms = [arm for arm in lab.arms if arm.clips == clips]
    assert render(page(lab, runs(lab, arms[:2], steps=2), command="gradclip lab", seed=0))


def test_ways_to_clip_one_setting_have_colours_of_their_own():
    lab = load("lstm")
    arms = [Arm("LSTM", 0.1), Arm("LSTM", 0.1, "value:1.0"), Arm("LSTM", 0.1, "agc:0.1")]
    done = [Curves(arm, [1.0], [1.0], [1.0], [math.inf], [False]) for arm in arms]
    losses = page(lab, done, command="", seed=0).charts[0]
    assert len({line.colour for line in losses.lines}) == 3


def test_a_labs_own_columns_stand_beside_the_usual_ones():
    table = summary(load("directions"), runs(load("directions"), steps=1))
    assert table.columns[:4] == ("arm", "squared error", "median angle", "largest angle")


def test_the_seed_of_several_runs_is_told():
    arm = Arm("length 10", 0.1, UNCLIPPED, 1)
    facts = page(load("temporal-order"), runs(load("temporal-order"), [arm], steps=1), command="", seed=3).facts
    assert facts["Seed"] == "3, the same weights and batches for runs of one number"


def test_a_line_over_something_else_marks_its_points_and_lists_them():
    lines = [Line("one", [1.0, 4.0], COLOURS[0], steps=[10, 100]), Line("other", [2.0], COLOURS[1], steps=[100])]
    chart = against("Title", "See.", lines, x="length", y="solved", log_x=True)
    assert [trace["mode"] for trace in chart.figure["data"]] == ["lines+markers"] * 2
    assert chart.figure["layout"]["xaxis"]["type"] == "log"
    assert chart.numbers.rows == [("10", "1", "–"), ("100", "4", "2")]


def test_a_path_that_left_the_numbers_is_still_json():
    chart = surface("Title", "See.", [Path("away", [0.0, math.inf], [0.0, math.nan], "#000000")], [[0.0]], [0.0], [0.0])
    assert json.loads(json.dumps(chart.figure, allow_nan=False))["data"][1]["x"] == [0.0, None]
