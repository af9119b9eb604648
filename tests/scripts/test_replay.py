"""``gradclip replay``: a recorded script runs again, unchanged and clipped."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gradclip.cli import app
from gradclip.runs import Run, RunWriter
from gradclip.watch.start.rerun import RerunError, command_of
from tests.diagnosis.runs import recorded
from tests.scripts.support import python, watched

EXPLODING = """\
import sys
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
x = torch.randn(64, 3)
for _ in range(60):
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("trained", *sys.argv[1:])
"""


def test_a_rerun_proves_what_clipping_does(tmp_path):
    (tmp_path / "exploding.py").write_text(EXPLODING)
    done = watched(["exploding.py", "--an", "argument"], tmp_path)
    assert done.code == 0, done.stderr
    replayed = python("-m", "gradclip", "replay", "--yes", "--clip", "trust", cwd=tmp_path, COLUMNS="200")
    assert replayed.code == 0, replayed.stderr
    assert "trust helps: the loss ends at " in replayed.stdout
    assert "repeated the recorded run to the bit" in replayed.stdout
    assert "--an argument" in replayed.stdout
    assert "again, unchanged" in replayed.stdout
    folder = done.runs[0].with_suffix(".replay")
    (unchanged,), (changed,) = ([*(folder / name).glob("*.gradclip")] for name in ("unchanged", "changed"))
    with Run.open(unchanged) as run:
        assert run.meta["clip"] is None
    with Run.open(changed) as run:
        assert run.meta["clip"] == "trust"
        assert run.meta["command"][-2:] == ["--an", "argument"]
    assert done.open().meta["clip"] is None


def test_a_script_that_cannot_run_again_is_told_so(tmp_path):
    (tmp_path / "once.py").write_text(
        "import os, torch\n"
        "w = torch.nn.Linear(2, 1); o = torch.optim.SGD(w.parameters(), 0.1)\n"
        "w(torch.ones(2)).sum().backward(); o.step(); o.zero_grad()\n"
        "os.remove(__file__)\n"
    )
    assert watched(["once.py"], tmp_path).code == 0
    replayed = python("-m", "gradclip", "replay", "--yes", cwd=tmp_path)
    assert replayed.code == 2
    assert "recorded no step" in replayed.stderr
    assert "once.py" in replayed.stderr


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({}, "only what gradclip run has recorded"),
        ({"watched": True, "command": ["python", "a.py"], "cwd": "no such folder"}, "is gone: no such folder"),
    ],
)
def test_what_was_not_started_by_gradclip_run_is_not_started_again(meta, said):
    with pytest.raises(RerunError, match=said):
        command_of(meta)


def test_a_recording_from_code_is_not_run_again(tmp_path):
    path = recorded(tmp_path / "a.gradclip", [[1.0]], writer=RunWriter(tmp_path / "a.gradclip", {"title": "a"}))
    replayed = python("-m", "gradclip", "replay", path, cwd=tmp_path)
    assert (replayed.code, replayed.stdout) == (2, "")
    assert "only what gradclip run has recorded" in replayed.stderr


@pytest.fixture
def marking(tmp_path):
    """A run file that is told to have been recorded from a command that leaves a mark."""
    program = f"open({str(tmp_path / 'mark')!r}, 'a').write('ran')  # \x1b[2K\u202e"
    meta = {"watched": True, "command": [sys.executable, "-c", program], "cwd": str(tmp_path), "created": 1e9}
    (tmp_path / "runs").mkdir()
    return recorded(tmp_path / "runs" / "a.gradclip", [[1.0]] * 3, **meta)


def ran(tmp_path):
    return (tmp_path / "mark").exists()


def test_nothing_is_run_where_nobody_can_be_asked(marking, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["replay"], input="y\n", env={"COLUMNS": "400"})
    assert done.exit_code == 2
    assert "add --yes" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not ran(tmp_path)
    where, command, folder = done.stdout.splitlines()
    assert where.startswith("runs/a.gradclip, your own file, recorded 2001-09-")
    assert command.strip().startswith(shlex.join([sys.executable, "-c"]))
    assert command.endswith("# \\x1b[2K\\u202e'")  # nothing hides a part of it
    assert str(tmp_path) in folder
    CliRunner().invoke(app, ["replay", "--yes"])
    assert ran(tmp_path)


@pytest.mark.parametrize(("answer", "code", "runs"), [("n", 1, False), ("", 1, False), ("y", 2, True)])
def test_the_user_is_asked(marking, tmp_path, answer, code, runs):
    """The program that it runs trains nothing, which is why the command fails where it was allowed to."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gradclip", "replay", str(marking)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(ours, f"{answer}\n".encode())
    output, errors = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert "Run it? [y/N]" in output
    assert process.returncode == code
    assert ran(tmp_path) == runs
    assert ("nothing was run" in errors) != runs


@pytest.mark.parametrize("foreign", ["", "-wal", "-journal"])
def test_the_file_of_another_user_is_not_replayed(marking, tmp_path, monkeypatch, foreign):
    """Whatever is allowed: what else SQLite reads from belongs to it."""
    part = marking.with_name(marking.name + foreign)
    if foreign:
        part.touch()
    plain = os.stat
    monkeypatch.setattr("os.stat", lambda path, **how: _OfSomebodyElse(plain(path, **how), str(path) == str(part)))
    done = CliRunner().invoke(app, ["replay", str(marking), "--yes"])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{part} belongs to ")
    assert "is not run" in done.stderr
    assert not ran(tmp_path)


class _OfSomebodyElse:
    """What a file's status would be if another user owned it."""

    def __init__(self, status, foreign):
        self._status, self._foreign = status, foreign

    def __getattr__(self, name):
        return getattr(self._status, name) + (4321 if self._foreign and name == "st_uid" else 0)
