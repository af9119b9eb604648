"""The tournament's arithmetic on made-up runs, and its quick form for real."""

from __future__ import annotations

import math

import pytest

from benchmarks.thresholds import tournament
from benchmarks.thresholds.page import verdict
from benchmarks.thresholds.results import Row, bests, read, standings, write_row


def rows(table):
    """Rows from ``{task: {method: metrics by seed}}``."""
    return [
        Row(task, method, seed, metric, 0.5, 1.0)
        for task, methods in table.items()
        for method, metrics in methods.items()
        for seed, metric in enumerate(metrics)
    ]


TABLE = rows(
    {
        "a": {
            "none": [math.inf, 2.0],
            "fixed 0.1": [4.0, 4.0],
            "fixed 1": [1.0, 3.0],
            "auto": [2.0, 2.08],
            "zclip": [math.inf, 1.0],
        },
        "b": {"none": [1.0, 1.0], "fixed 0.1": [3.0, 3.0], "fixed 1": [1.1, 1.1], "auto": [1.0, 1.0], "zclip": [1.0, 1.0]},
    }
)


def test_the_best_fixed_threshold_is_the_best_mean():
    assert bests(TABLE) == {"a": ("fixed 1", 2.0), "b": ("none", 1.0)}


def test_standings():
    found = {s.method: s for s in standings(TABLE)}
    assert found["auto"].regret == pytest.approx(math.log(1.02) / 2)
    assert (found["auto"].within, found["auto"].diverged, found["auto"].worst) == (2, 0, pytest.approx(1.02))
    assert found["zclip"].regret == pytest.approx(math.log(100) / 2)
    assert (found["zclip"].within, found["zclip"].diverged) == (1, 1)
    assert next(s.method for s in standings(TABLE)) == "auto"


def test_the_verdict_says_what_is_so():
    assert verdict(TABLE) == (
        "auto, untuned, ended within 5 % of the best fixed threshold on 2 of 2 tasks (at worst 1.02 times its loss), "
        "with 0 diverged runs; no published rule did better on the whole."
    )
    worse = [Row(r.task, r.method, r.seed, math.inf if r.method == "auto" else r.metric, 0, 0) for r in TABLE]
    assert "on 0 of 2 tasks" in verdict(worse)
    assert "zclip did better" in verdict(worse)


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "runs.csv"
    for row in TABLE:
        write_row(path, row)
    assert read(path) == TABLE


def test_the_quick_form_runs_resumes_and_makes_a_page(tmp_path, capsys):
    path = tmp_path / "quick.csv"
    arguments = ["--quick", "--seeds", "1", "--jobs", "1", "--csv", str(path)]
    found = tournament.main(arguments)
    again = tournament.main([*arguments, "--page", str(tmp_path / "page.html")])
    assert len(found) == len(again) == len(read(path)) == 6 * 6
    standing = {s.method: s for s in standings(found)}
    assert standing["auto"].diverged == 0
    assert standing["none"].diverged > 0
    assert standing["auto"].regret < min(standing[name].regret for name in ("none", "zclip"))
    assert "over all tasks" in capsys.readouterr().out
    assert "Which threshold rule?" in (tmp_path / "page.html").read_text()
