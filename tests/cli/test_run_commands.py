"""The commands that show runs: what they print, and what they say when they cannot."""

from __future__ import annotations

import csv
import math
import os
import pty
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.cli.tables import plain
from gradclip.runs import RunWriter, StepRow
from tests.diagnosis.runs import recorded
from tests.runs.test_damage import make

COMMANDS = ("report", "suggest", "top", "export", "compare")


def call(*words, code=0, width=200):
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(width)})
    assert done.exit_code == code, done.output
    return done.stderr if code else done.stdout


@pytest.fixture
def run(tmp_path):
    rows = np.random.default_rng(0).uniform(0.9, 1.1, (200, 3))
    (tmp_path / "runs").mkdir()
    return recorded(tmp_path / "runs" / "a.gradclip", rows.tolist(), threshold=1.7)


def test_report_writes_beside_the_run_or_where_it_is_told(run, tmp_path):
    assert f"Page: {run.with_suffix('.html')}" in call("report", run)
    assert "run finished after 200 steps" in run.with_suffix(".html").read_text()
    call("report", run, "--out", tmp_path / "deep" / "page.html")
    assert (tmp_path / "deep" / "page.html").read_text().startswith("<!doctype html>")


def test_the_page_never_goes_over_the_run(run):
    before = run.read_bytes()
    assert "is the run itself" in call("report", run, "--out", run, code=2)
    assert run.read_bytes() == before


@pytest.mark.parametrize("width", [80, 120, 200])
def test_report_as_text_fits_the_terminal(run, width):
    text = call("report", run, "--text", width=width)
    assert "run finished after 200 steps" in text.replace("\n", " ")
    assert "Suggested: --clip global_norm:" in text
    assert max(map(len, text.splitlines())) <= width
    assert len(text.splitlines()) < 60
    assert not run.with_suffix(".html").exists()


def test_the_latest_run_is_meant_where_none_is_named(run, tmp_path, monkeypatch):
    for name, created in (("old", 1.0), ("new", 4e9)):
        recorded(run.with_name(f"{name}.gradclip"), [[1.0]] * 3, title=name, created=created)
    run.with_name("broken.gradclip").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    assert call("report", "--text").startswith("new finished")
    assert call("report", "runs", "--text").startswith("new finished")


def test_suggest_prints_thresholds_recipes_and_one_of_them(run):
    text = call("suggest", run)
    assert text.startswith("Suggested: --clip global_norm:3.7, because no norm was above 5 times the median")
    assert [line.split()[0] for line in text.splitlines() if line[:1].isdigit()] == ["50%", "75%", "90%", "95%", "99%", "99.9%"]
    assert "--clip autoclip:90" in text


def test_suggest_of_a_run_without_steps(tmp_path):
    RunWriter(tmp_path / "a", {"title": "a"}).close()
    assert call("suggest", tmp_path / "a") == "a: no step was recorded, so nothing can be suggested.\n"


def test_compare_prints_and_writes(run, tmp_path):
    other = recorded(tmp_path / "b.gradclip", [[2.0]] * 50, title="other", losses=[0.5] * 50)
    text = call("compare", run, other, "--out", tmp_path / "page.html")
    assert "ends with the lowest loss" in text
    assert "other" in text
    assert "other" in (tmp_path / "page.html").read_text()
    assert call("compare", run, code=2) == "name at least two runs: gradclip compare A B\n"


def test_top_once(run):
    text = call("top", run, "--once")
    assert text.startswith("run: finished, step 199")
    assert "clipped" in text
    assert "w2" in text


def test_top_follows_a_run_to_its_end(tmp_path):
    """In a terminal, while the run is written; it leaves by itself."""
    writer = RunWriter(tmp_path / "a", {"title": "live"}, interval=0.05)
    writer.add_step(StepRow(step=0, loss=1.0, norm=1.0))
    writer.flush()
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gradclip", "top", str(tmp_path / "a"), "--interval", "0.1"]
    top = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
    os.close(theirs)
    shown = b""

    def read():
        nonlocal shown
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # the terminal's other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    while b"step 0" not in shown and top.poll() is None:
        time.sleep(0.02)
    assert top.poll() is None
    writer.add_step(StepRow(step=41, loss=1.0, norm=math.nan))
    writer.close()
    assert top.wait(20) == 0
    reader.join(5)
    os.close(ours)
    assert b"running, step 0" in shown
    assert b"finished, step 41" in shown


def test_export(run, tmp_path):
    files = call("export", run, "--to", "csv", "--out", tmp_path / "csv").split()
    with open(files[0], newline="") as file:
        assert len(list(csv.DictReader(file))) == 200
    call("export", run, "--to", "csv")
    assert (run.parent / "a-csv" / "steps.csv").exists()
    (tmp_path / "file").touch()
    assert call("export", run, "--to", "csv", "--out", tmp_path / "file", code=2).startswith("cannot export to")


def test_list(run, tmp_path, monkeypatch):
    run.with_name("broken.gradclip").write_text("nothing")
    monkeypatch.chdir(tmp_path)
    text = call("list")
    assert "a.gradclip" in text
    assert "unreadable" in text
    assert "broken.gradclip is not a gradclip run" in text
    assert call("list", tmp_path).startswith("There is no run in")
    assert "there is no folder" in call("list", "nowhere", code=2)


@pytest.mark.parametrize("case", ["garbage", "text", "empty", "other database", "newer", "no steps", "bad json", "word"])
def test_a_file_that_cannot_be_read_is_one_sentence(case, tmp_path):
    path = make(tmp_path, case)
    for command in [c for c in COMMANDS if (c, case) != ("export", "bad json")]:  # which needs none of the JSON
        more = {"top": ["--once"], "export": ["--to", "csv"], "compare": [path]}.get(command, [])
        error = call(command, path, *more, code=2)
        assert str(path) in error
        assert len(error.splitlines()) == 1


def test_what_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no folder runs" in call("report", code=2)
    assert call("report", "nowhere.gradclip", code=2) == "there is no file nowhere.gradclip\n"
    assert call("suggest", tmp_path, code=2).startswith(f"there is no run in {tmp_path}; record one with")


def test_a_name_cannot_steer_the_terminal(tmp_path):
    path = recorded(tmp_path / "a", [[1.0]] * 3, names=["w\x1b[2J\n\x07[bold]"], title="\x1b]0;owned\x07")
    for words in (
        ["report", path],
        ["report", path, "--text"],
        ["top", path, "--once"],
        ["suggest", path],
        ["compare", path, path],
        ["list", tmp_path],
    ):
        text = call(*words)
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "w\\x1b[2J\\n\\x07[bold]" in call("top", path, "--once")
    assert plain("a\tb\nc") == "a\\tb\nc"
