"""The page stands alone, and text from outside stays text."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from gradclip.report.charts import Chart, Line, curves
from gradclip.report.page import Page, Table, render, write

NASTY = "<script>alert(1)</script><!-- </script> <b onclick='x'>\"&amp;"


class Reader(HTMLParser):
    """What a browser sees: the elements, the text of scripts, and all other text."""

    def __init__(self, document):
        super().__init__()
        self.elements, self.scripts, self.words = [], [], []
        self.inside = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif not self.inside:
            self.words.append(data)

    def count(self, tag):
        return sum(name == tag for name, _ in self.elements)


def page(name="w"):
    charts = [
        curves(name, name, [Line(name, [1.0, math.nan, 3.0])], y=name),
        curves(name, name, [Line(name, values) for values in ([3.0, 4.0], [1.0, 1.0], [1.0, 1.0])], y=name, log=True),
    ]
    table = Table(name, (name, "n"), [(name, "1")], frozenset({1}), [name])
    return Page(name, name, about=name, tables=[table], charts=charts, facts={name: name})


@pytest.fixture(scope="module")
def plain():
    return Reader(render(page()))


@pytest.fixture(scope="module")
def nasty():
    return Reader(render(page(NASTY)))


def test_nothing_is_loaded_from_anywhere(plain):
    for _, attributes in plain.elements:
        assert not {"src", "href", "srcset", "data", "action", "poster"} & set(attributes)
    assert plain.count("link") == plain.count("img") == plain.count("iframe") == 0
    (policy,) = [a["content"] for tag, a in plain.elements if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    styles = re.findall(r"<style>(.*?)</style>", render(page()), re.DOTALL)
    assert not re.search(r"url\(|@import", "".join(styles))


def test_names_from_outside_add_no_element(plain, nasty):
    assert [tag for tag, _ in nasty.elements] == [tag for tag, _ in plain.elements]
    assert not any("onclick" in attributes for _, attributes in nasty.elements)


def test_names_from_outside_are_shown_as_they_are(nasty):
    # title, heading, verdict, about, caption, column, row, note, 2 chart headings and sentences, ..., facts
    assert nasty.words.count(NASTY) >= 12


def test_a_chart_survives_its_json(nasty):
    figure = json.loads(nasty.scripts[0])
    assert figure["data"][0]["y"] == [1.0, None, 3.0]
    # plotly decodes entities in a name, and takes out what it reads as a tag
    assert figure["data"][0]["name"].startswith("&lt;script&gt;alert(1)&lt;/script&gt;")


def test_no_figure_can_end_its_script():
    figure = {"data": [{"name": NASTY}], "layout": {}}
    shown = Reader(render(Page("t", "v", charts=[Chart("c", "s", figure, ())])))
    assert json.loads(shown.scripts[0]) == figure
    assert shown.count("script") == 3  # the figure, plotly.js and the page's own


def test_it_can_be_read_without_seeing_it(plain):
    assert plain.count("h1") == 1
    headings = {a["id"] for tag, a in plain.elements if tag == "h2"}
    assert {a["aria-labelledby"] for tag, a in plain.elements if tag == "figure"} == headings
    assert all(a["aria-label"] for tag, a in plain.elements if a.get("role") == "img")
    assert {a.get("scope") for tag, a in plain.elements if tag == "th"} == {"col", "row"}
    assert plain.count("figcaption") == plain.count("figure") == 2


def test_plotly_is_there_once_and_only_with_charts(plain):
    assert sum("plotly.js v" in script for script in plain.scripts) == 1
    bare = render(Page("t", "v"))
    assert len(bare) < 20_000


def test_write_makes_the_folders(tmp_path):
    path = write(Page("t", "Ünïcode ∞"), tmp_path / "a" / "b.html")
    assert "Ünïcode ∞" in path.read_text(encoding="utf-8")
