"""Progress is a bar and a few names in a terminal, and a line for each arm that has ended elsewhere."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from gradclip.cli.progress import MOST_NAMES, progress
from gradclip.labs.runner import Tick

ARMS = [f"length 50 at lr 0.1, run {i}, global_norm:1.0" for i in range(40)]
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def told(ticks, arms=ARMS, terminal=True, steps=4000):
    """What is on the screen at the end, line by line."""
    out = io.StringIO()
    with progress(Console(file=out, force_terminal=terminal, width=80, _environ={}), arms, steps) as report:
        for tick in ticks:
            report(tick)
    last = out.getvalue().split("\x1b[2K")[-1]  # what was drawn after the last erased line
    return [line.rstrip() for line in CODES.sub("", last).splitlines() if line.strip()]


def test_a_terminal_shows_one_bar_and_the_arms_under_way():
    ended = [Tick(i, 4000, 0.01, 0.2, done=True) for i in range(10)]
    bar, *names = told([*ended, Tick(11, 1234, 1.391, 0.4567), Tick(10, 7, 0.5, 2.0), Tick(10, 8, 0.5, 2.0)])
    assert re.match("[━╸╺]{40} 10 of 40 arms ", bar)
    assert names == [f"{ARMS[10]}  8/4000     loss 0.5   norm 2", f"{ARMS[11]}  1234/4000  loss 1.39  norm 0.457"]


@pytest.mark.parametrize("under_way", [1, MOST_NAMES, MOST_NAMES + 1, 40])
def test_few_lines_are_shown_however_many_arms_are_under_way(under_way):
    bar, *names = told([Tick(i, 1, 1.0, 1.0) for i in range(under_way)])
    named = min(under_way, MOST_NAMES)
    assert "0 of 40 arms" in bar
    assert [name.split("  ")[0] for name in names[:named]] == ARMS[:named]
    assert names[named:] == ([f"and {under_way - named} more"] if under_way > named else [])


def test_a_long_name_is_cut_and_its_numbers_are_not():
    name = "net at lr 0.01, run 1, quantile:0.85,window=100,per_tensor=true,exclude=[ox]utput.*\x1b[2J"
    (_, line) = told([Tick(0, 1234, 1.391, 0.4567)], [name])
    assert len(line) <= 80
    assert line.startswith("net at lr 0.01, run 1, quantile:0.85,")
    assert line.endswith("…  1234/4000  loss 1.39  norm 0.457")


def test_arms_that_stop_early_leave_a_full_bar():
    bar, *names = told([Tick(i, i, 0.01, 0.2, done=True) for i in range(40)])
    assert "40 of 40 arms" in bar
    assert names == []
    half, *_ = told([Tick(i, 1, 0.01, 0.2, done=True) for i in range(20)])
    assert "╺" in half
    assert "╺" not in bar
    assert "╸" not in bar


def test_elsewhere_each_arm_is_a_line_when_it_ends():
    ticks = [Tick(0, 1, 2.0, 1.0), Tick(1, 1, 2.0, 1.0), Tick(1, 3, 1.5, 1.0, done=True), Tick(0, 2, 0.25, 1.0, done=True)]
    assert told(ticks, ["[a]", "b"], terminal=False) == ["b: 3 steps, loss 1.5", "[a]: 2 steps, loss 0.25"]
