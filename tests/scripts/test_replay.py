"""``gradclip replay``: a recorded script runs again, unchanged and clipped."""

from __future__ import annotations

import pytest

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
    replayed = python("-m", "gradclip", "replay", "--clip", "trust", cwd=tmp_path, COLUMNS="200")
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
    replayed = python("-m", "gradclip", "replay", cwd=tmp_path)
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
