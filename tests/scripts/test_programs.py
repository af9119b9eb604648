"""Small training programs, as people write them: each prints the same under watch, and what is recorded is the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.scripts.support import PROGRAMS, plain, program, watched

CALLS = {"unscale": "scaler."}
"""What the line of an event holds, where it is not the event's own name."""
CODES = {"crash": 1, "leaves": 3, "interrupted": -2}
PLAIN = sorted(
    p.stem
    for p in PROGRAMS.glob("*.py")
    if p.stem not in ("truth", "arguments", "environment", "untrained", "endless", "ranks", "processes", "sharded")
)


def agree(run, truth):
    """Assert that a run's columns, and the order of its events, are what the program says."""
    assert set(map(str, run.optimizers)) >= set(truth["steps"])
    for number, rows in truth["steps"].items():
        steps = run.steps(int(number))
        assert len(steps) == len(rows), f"optimizer {number}"
        for i, row in enumerate(rows):
            for name, value in row.items():
                found = None if steps.missing[name][i] else float(getattr(steps, name)[i])
                wanted = None if value is None else pytest.approx(float(value), rel=1e-5, abs=1e-9, nan_ok=True)
                assert found == wanted, f"{name} at step {i} of optimizer {number}"
    events = {}
    for step, _, happened in run.events():
        events.setdefault(step, []).extend(happened)
    for step, kinds in truth["events"].items():
        assert [event.kind for event in events[int(step)]] == kinds, step


def told(run):
    """Return the kinds of all events, and the source lines that the run names for them, by kind."""
    events = [event for *_, happened in run.events() for event in happened]
    lines = {}
    for kind, place in {event.kind: event.place for event in events if event.place}.items():
        name, number = place.rsplit(":", 1)
        lines[kind] = Path(name).read_text().splitlines()[int(number) - 1]
    return {event.kind for event in events}, lines


def same(one, other):
    """Assert that nobody could tell two runs apart, but for our lines."""
    assert other.stdout == one.stdout
    assert other.others == one.others
    assert other.code == one.code


@pytest.mark.parametrize("name", PLAIN)
def test_program(name, tmp_path):
    usual = plain(program(name), tmp_path)
    assert usual.code == CODES.get(name, 0), usual.stderr
    assert usual.truth["steps"], "the program checks nothing"
    assert not usual.runs
    under_watch = watched(program(name), tmp_path)
    same(usual, under_watch)
    assert under_watch.truth == usual.truth
    assert 1 <= len(under_watch.said) <= 12
    with under_watch.open() as run:
        agree(run, usual.truth)
        assert run.status == {"crash": "crashed", "interrupted": "interrupted"}.get(name, "finished")
        names = [tensor.name for tensor in run.tensors]
        assert not [n for n in names if n.startswith(("tensor", "?"))] or name in ("functional",), names
        for number in run.optimizers:
            rows, norms = run.tensor_matrix("norm", number), run.steps(number).norm
            with np.errstate(invalid="ignore"):
                totals = np.sqrt(np.nansum(np.square(rows.matrix.astype(float)), axis=1))
            finite = np.isfinite(norms)
            np.testing.assert_allclose(totals[finite], norms[finite], rtol=1e-5)
            assert "weight_norm" in run.kinds(number)
            assert "update_norm" in run.kinds(number)
        kinds, lines = told(run)
        assert "stale" not in kinds
        assert set(lines) == kinds - {"forward", "cut"}
        for kind, line in lines.items():
            assert CALLS.get(kind, kind) in line, (kind, line)
        assert run.meta["unstepped"] == []
        assert run.meta["backwards_after"] == (2 if name == "crash" else 0)


def test_arguments_and_relative_paths(tmp_path):
    (tmp_path / "numbers.txt").write_text("0.5 1.0 -1.5")
    words = program("arguments", "numbers.txt", "--clip", "0.25", "-m", "x", "--every", "--out", "result.txt")
    usual = plain(words, tmp_path)
    result = (tmp_path / "result.txt").read_text()
    (tmp_path / "result.txt").unlink()
    under_watch = watched(words, tmp_path, "--every", "2")
    same(usual, under_watch)
    assert (tmp_path / "result.txt").read_text() == result
    with under_watch.open() as run:
        agree(run, usual.truth)
        assert run.tensor_matrix("norm").steps.tolist() == [0, 2, 4]
        assert run.meta["every"] == 2
        assert run.meta["command"][-len(words) :] == words


def test_a_package(tmp_path):
    words = ["-m", "package", "--lr", "1", "-m"]
    usual = plain(words, tmp_path, PYTHONPATH=str(PROGRAMS))
    under_watch = watched(words, tmp_path, PYTHONPATH=str(PROGRAMS))
    same(usual, under_watch)
    assert usual.code == 0
    with under_watch.open() as run:
        assert len(run.steps()) == 5


@pytest.mark.parametrize("before", [None, "one::two"])
def test_the_environment_is_the_same(before, tmp_path):
    variables = {} if before is None else {"PYTHONPATH": before}
    usual = plain(program("environment"), tmp_path, **variables)
    under_watch = watched(program("environment"), tmp_path, **variables)
    same(usual, under_watch)
    assert usual.code == 0
    with under_watch.open() as run:
        assert len(run.steps()) == 1
