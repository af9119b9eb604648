"""The page in a real browser: it is drawn, it asks nobody for anything, and names are text."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gradclip.report.page import write
from gradclip.report.run_page import run_page
from tests.diagnosis.runs import read, recorded

from .browser import needed, show, words

pytestmark = needed
NASTY = ["<script>alert(1)</script>", "</script><img src=x onerror=alert(2)>", "a & b &lt; <b>%{y}</b>"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rows = np.random.default_rng(0).uniform(0.5, 1.5, (60, 3))
    rows[7, 1] = math.nan
    file = tmp_path_factory.mktemp("runs") / "a.gradclip"
    recorded(file, rows.tolist(), names=NASTY, threshold=1.5, skips=[7], ratio=0.01, scale=8.0, title=NASTY[0])
    return write(run_page(read(file)), file.with_suffix(".html"))


@pytest.fixture(scope="module")
def light(page):
    return show(page)


def test_every_chart_is_drawn(page, light):
    assert page.read_text().count('<div class="plot"') == light.count('class="plot js-plotly-plot"') == 6
    assert light.count(r'<svg class="main-svg"') >= 6
    assert light.count('class="hm"') >= 1  # the heatmap


def test_nothing_goes_wrong_and_nothing_is_asked_for(light):
    assert light.console == []
    assert {name: light.noted[name] for name in ("alerts", "errors", "violations", "requests")} == dict.fromkeys(
        ("alerts", "errors", "violations", "requests"), "0"
    )


def test_names_are_text(light):
    picture = light.html.split('class="plot js-plotly-plot"')[4].split("<details")[0]
    for name in NASTY:
        assert name in light.words
    labels = words("<div" + picture)
    assert NASTY[0] in labels
    assert NASTY[2] in labels  # plotly would take <b> for bold
    assert light.count("<img") == 0
    assert light.count("<script") == 6 + 3  # the figures; the witness, plotly.js and the page's own


def test_zooming_one_chart_zooms_the_others(light):
    ranges = json.loads(light.noted["ranges"])
    assert len(ranges) == 5
    assert all(low == pytest.approx(5) and high == pytest.approx(15) for low, high in ranges)


def test_dark_is_dark_and_narrow_is_not_cut(page, light):
    dark = show(page, dark=True, width=500)
    assert light.noted["ground"] == "rgb(255, 255, 255)"
    assert dark.noted["ground"] == "rgb(20, 23, 28)"
    assert int(dark.noted["overflow"]) <= 0
    assert dark.console == []


def test_the_witness_sees(tmp_path):
    bad = tmp_path / "bad.html"
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'\">"
    bad.write_text(
        f"<html><head>{policy}<title>t</title></head><body><img src='http://example.org/a.png'>"
        "<script>alert(1); console.error('lost'); missing()</script></body></html>"
    )
    shown = show(bad)
    assert (shown.noted["alerts"], shown.noted["violations"]) == ("1", "1")
    assert shown.noted["errors"] != "0"
    assert any("lost" in line for line in shown.console)
