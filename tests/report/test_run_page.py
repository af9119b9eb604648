"""What stands on the page of a run."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradclip.report.charts import Chart
from gradclip.report.comparison import compare_page, compared
from gradclip.report.event_order import order_table
from gradclip.report.heatmap import BAD, heatmap
from gradclip.report.histogram import histogram
from gradclip.report.layer_table import layer_table
from gradclip.report.live import Follower, frame
from gradclip.report.page import render
from gradclip.report.ratios import ratios
from gradclip.report.run_page import run_page
from gradclip.report.run_text import run_text
from gradclip.report.table import Table
from gradclip.report.timeline import norms
from gradclip.runs import ABSENT, Event, RunWriter
from tests.diagnosis.runs import ORDER, Run, read, recorded

NAN = math.nan
ROWS = [[1.0, ABSENT], [10.0, 100.0], [NAN, 1000.0], [1.0, 0.0]]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "a.gradclip"


def charts(page):
    return {part.title: part for section in page.sections for part in section.parts if isinstance(part, Chart)}


def test_a_page_has_every_part(file):
    page = run_page(read(recorded(file, ROWS * 30, threshold=5.0, skips=[2], ratio=0.01, scale=8.0)))
    assert list(charts(page)) == [
        "Loss", "Gradient norm", "Loss scale", "Norms by layer", "Update-to-weight ratio", "Which threshold clips how much",
    ]  # fmt: skip
    assert [section.title for section in page.sections] == ["Steps", "Layers", "Thresholds", "Order of events"]
    assert page.tables[0].caption == "Status: finished"
    for chart in charts(page).values():
        json.dumps(chart.figure, allow_nan=False)
        assert chart.see


def test_each_optimizer_has_its_parts(file):
    writer = RunWriter(file, {})
    recorded(file, [[1.0]] * 20, writer=writer, status=None)
    recorded(file, [[1.0]] * 20, optimizer=1, writer=writer)
    titles = [section.title for section in run_page(read(file)).sections]
    assert titles == [f"Optimizer {i}: {part}" for i in (0, 1) for part in ("steps", "layers", "thresholds")] + [
        "Order of events"
    ]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_short_runs_have_a_page(file, steps):
    if steps:
        recorded(file, [[1.0, 2.0]] * steps, threshold=1.0)
    else:
        RunWriter(file, {}).close()
    assert "<h1>" in render(run_page(read(file)))
    assert list(run_text(read(file)))


def test_the_heatmap_tells_numbers_from_gaps_and_from_nan(file):
    layers = read(recorded(file, ROWS)).optimizers[0].layers
    chart = heatmap(layers)
    cells, bad, crosses = chart.figure["data"]
    low = cells["zmin"]
    assert cells["z"] == [[0, 1, None, 0], [None, 2, 3, low]]  # a norm of 0 has the darkest colour
    assert bad["z"] == [[None, None, 1, None], [None] * 4]
    assert bad["colorscale"][0][1] == BAD
    assert (crosses["x"], crosses["y"]) == ([2], [0])
    assert "Grey: no gradient." in chart.see
    assert "NaN or Inf (1 step)" in chart.see


def test_a_long_heatmap_keeps_its_extremes(file):
    rows = np.ones((5000, 3))
    rows[1234, 1], rows[4321, 2] = 1e4, NAN
    chart = heatmap(read(recorded(file, rows.tolist())).optimizers[0].layers)
    cells, bad, _ = chart.figure["data"]
    assert len(cells["x"]) <= 400
    assert max(value for value in cells["z"][1] if value is not None) == 4.0
    assert sum(value == 1 for value in bad["z"][2]) == 1
    assert "the largest of about 13 recorded steps" in chart.see


def test_many_tensors_are_few_rows_and_it_is_said(file):
    names = [f"model.h.{i}.{kind}" for i in range(100) for kind in ("weight", "bias")]
    page = run_page(read(recorded(file, [[1.0] * 200] * 3, names=names)))
    chart = charts(page)["Norms by layer"]
    assert len(chart.figure["data"][0]["z"]) == 50
    assert "The 200 tensors are shown as 50 modules; the norm of a module is the root of the sum" in chart.see
    assert "All names begin with model.h." in chart.see
    assert chart.figure["layout"]["yaxis"]["ticktext"][0] == "0 … 1"


def test_the_table_of_layers(file):
    table = layer_table(read(recorded(file, ROWS)).optimizers[0].layers)
    # shares: 1 and 0; 1/101 and 100/101; 0 and 1 (the NaN counts as nothing); 1 and 0
    assert table.rows[0] == ("w0", "1", "1", "1", "10", "1", "50.2%", "1")
    assert table.rows[1] == ("w1", "1", "100", "100", "1,000", "0", "49.8%", "0")


def test_norms_show_before_after_and_the_threshold(file):
    chart = norms(read(recorded(file, [[3.0], [0.5]], threshold=1.0)).optimizers[0])
    assert [(trace["name"], trace["y"]) for trace in chart.figure["data"]] == [
        ("before clipping", [3.0, 0.5]), ("after clipping", [1.0, 0.5]), ("threshold", [1.0, 1.0]),
    ]  # fmt: skip
    assert chart.figure["layout"]["yaxis"]["type"] == "log"
    assert "The largest norm before clipping was 3, 1.71 times the median." in chart.see


def test_a_run_without_clipping_has_no_line_after_and_no_threshold(file):
    chart = norms(read(recorded(file, [[3.0], [0.5]])).optimizers[0])
    assert [trace["name"] for trace in chart.figure["data"]] == ["gradient norm"]


def test_charts_side_by_side_share_their_range(tmp_path):
    mine, other = [3.0, 0.5], [1000.0, NAN]
    files = (recorded(tmp_path / f"{rows[0]}.gradclip", [[norm] for norm in rows]) for rows in (mine, other))
    a, b = (norms(read(file).optimizers[0], beside=mine + other) for file in files)
    low, high = a.figure["layout"]["yaxis"]["range"]
    assert b.figure["layout"]["yaxis"]["range"] == [low, high]
    assert low < math.log10(0.5)
    assert high > 3
    assert not a.wide
    (marks,) = (trace for trace in b.figure["data"] if trace["mode"] == "markers")
    assert marks["y"] == [10**low]


def test_marks_where_steps_were_skipped_or_not_finite(file):
    rows = [[1.0]] * 10
    rows[4] = [NAN]
    chart = norms(read(recorded(file, rows, skips=[4, 7], threshold=2.0)).optimizers[0])
    marks = {trace["name"]: trace["x"] for trace in chart.figure["data"] if trace["mode"] == "markers"}
    assert marks == {"skipped": [4, 7], "NaN or Inf": [4]}
    assert [line.name for line in chart.lines] == ["before clipping", "after clipping", "threshold"]


def test_ratios_have_a_guide(file):
    chart = ratios(read(recorded(file, [[1.0, 1.0]] * 3, ratio=0.01)).optimizers[0].ratios)
    (guide,) = chart.figure["layout"]["shapes"]
    assert guide["y0"] == guide["y1"] == -3
    assert chart.figure["data"][0]["y"] == pytest.approx([-2.0] * 3)
    assert chart.numbers.rows[0] == ("w0", "0.01", "0.01", "0.01", "0.01")


def test_the_curve_says_what_a_threshold_would_clip():
    values = np.arange(1.0, 101.0)
    curve = histogram(values).figure["data"][1]
    for x, y in list(zip(curve["x"], curve["y"], strict=True))[:: len(curve["x"]) // 9]:
        assert y == pytest.approx(100 * (values > x).mean(), abs=1.0)
    assert sum(histogram(values).figure["data"][0]["y"]) == 100


def test_orders_of_events_are_counted(file):
    table = order_table(read(recorded(file, [[1.0]] * 10)).events)
    assert [row[1:] for row in table.rows] == [
        ("9", "90.0%", "1", "9", "zero_grad → forward → backward → clip (clip_grad_norm_) → step"),
        ("1", "10.0%", "0", "0", "forward → backward → clip (clip_grad_norm_) → step"),
    ]
    micro = (Event("forward"), Event("backward")) * 4 + ORDER[3:]
    assert order_table([(0, 0, micro)]).rows[0][-1] == "4 × (forward → backward) → clip (clip_grad_norm_) → step"


def test_the_text_is_a_screen_or_two(file):
    parts = list(run_text(read(recorded(file, [[1.0] * 200] * 50, threshold=2.0, ratio=0.01), most=16)))
    lines = sum(len(part.rows) + len(part.notes) + 3 if isinstance(part, Table) else part.count("\n") + 1 for part in parts)
    assert lines < 60
    (layers,) = [part for part in parts if isinstance(part, Table) and part.columns[0] == "layer"]
    assert len(layers.rows) <= 16


def test_runs_side_by_side(tmp_path):
    first = recorded(tmp_path / "a", [[1.0]] * 20, losses=[2.0] * 20, threshold=0.5)
    second = recorded(tmp_path / "b", [[3.0]] * 20, losses=[3.0] * 18 + [1.0] * 2, status="crashed")
    with Run.open(first) as a, Run.open(second) as b:
        page = compare_page(compared([a, b]), "")
    assert page.verdict == "b ends with the lowest loss, 1 (mean of the last tenth), then a at 2."
    assert page.tables[0].rows == [
        ("a", "20", "2", "2", "1", "100%", "0", "500"),
        ("b (crashed)", "20", "1", "1", "3", "–", "0", "500"),
    ]
    assert [len(chart.lines) for chart in page.charts] == [2, 2]


def test_following_a_run_is_the_same_as_reading_it_at_once(file):
    writer = RunWriter(file, {"title": "run"})
    rows = [[1.0, 2.0], [1.0, NAN], [3.0, 4.0]]
    recorded(file, rows, writer=writer, threshold=3.0, skips=[1], status=None)
    with Run.open(file) as run:
        follower = Follower(run)
        follower.read_new()
        assert (
            follower.totals.steps,
            follower.step,
            follower.totals.norm,
            follower.totals.clipped,
            follower.totals.nonfinite,
            follower.totals.skipped,
        ) == (
            3,
            2,
            5.0,
            2,
            1,
            1,
        )
        assert [name for name, *_ in follower.layers] == ["w1", "w0"]
        follower.read_new()
        assert follower.totals.steps == 3
        shown = frame(follower, run.status, "run")
    assert shown[0].startswith("run: running, step 2")
    writer.close()
