"""Scripts that do not get far, or not where one would like: the same words and code as ever, and a line of ours."""

from __future__ import annotations

import sys

import pytest

from gradclip.runs import Run
from tests.scripts.support import plain, program, watched
from tests.scripts.test_programs import same

SCRIPTS = {
    "missing": (None, "did not import PyTorch"),
    "broken": ("def f(:\n", "did not import PyTorch"),
    "error": ("raise OSError('no')\n", "did not import PyTorch"),
    "import_error": ("import torch.no_such_thing\n", "NOTHING WAS RECORDED"),
    "leaving": ("import torch, sys\nsys.exit('a message')\n", "NOTHING WAS RECORDED"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_training(name, tmp_path):
    text, line = SCRIPTS[name]
    if text is not None:
        (tmp_path / f"{name}.py").write_text(text)
    usual = plain([f"{name}.py"], tmp_path)
    under_watch = watched([f"{name}.py"], tmp_path)
    assert usual.code != 0
    same(usual, under_watch)
    assert line in under_watch.said[0]
    assert not under_watch.runs


def test_a_script_that_never_trains_is_told_so(tmp_path):
    same(plain(program("untrained"), tmp_path), under_watch := watched(program("untrained"), tmp_path))
    assert "backward() was called 0 times" in under_watch.said[0]
    assert not under_watch.runs


LOSING = """\
import glob, os, sqlite3, sys, time, torch
def written():
    connection = sqlite3.connect(f"file:{glob.glob('runs/*.gradclip')[0]}?mode=ro", uri=True)
    (steps,) = connection.execute("SELECT count(*) FROM steps").fetchone()
    connection.close()
    return steps
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(60):
    if step == 20:
        while not written():
            time.sleep(0.05)
        (name,) = [name for name in os.listdir("runs") if name.endswith(".gradclip")]
        if sys.argv[1] == "moved":
            os.mkdir("kept")
            os.rename(f"runs/{name}", "kept/run.gradclip")
        else:
            os.remove(f"runs/{name}")
    model(torch.ones(2, 3)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system does not say where it was moved")
@pytest.mark.parametrize("fate", ["moved", "deleted"])
def test_steps_that_are_not_on_the_disk_are_not_called_recorded(tmp_path, fate):
    (tmp_path / "losing.py").write_text(LOSING)
    done = watched(["losing.py", fate], tmp_path)
    assert done.code == 0, done.stderr
    (said,) = [line for line in done.said if "recorded" in line and "finished" in line]
    if fate == "deleted":
        assert said == "0 of 60 steps recorded; finished"
        assert not any(line.startswith(("checks", "run ", "report")) for line in done.said)
        return
    with Run.open(tmp_path / "kept" / "run.gradclip") as run:
        steps = len(run.steps())
    assert 0 < steps < 60
    assert said == f"{steps} of 60 steps recorded, in kept/run.gradclip; finished"
    assert "run     kept/run.gradclip" in done.said


def test_a_notebook_is_refused_with_a_way_out(tmp_path):
    (tmp_path / "train.ipynb").write_text("{}")
    under_watch = watched(["train.ipynb"], tmp_path)
    assert under_watch.code == 2
    assert "gradclip.record() in a cell" in under_watch.stderr
    assert "jupyter nbconvert --to script train.ipynb" in under_watch.stderr


COMPILED_STEP = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = {optimizer}
def act():
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
act = torch.compile(act, backend="eager")
for i in range(12):
    optimizer.zero_grad()
    (100 * model(torch.ones(8, 4) * i)).square().mean().backward()
    act()
"""
OWN = """type("Own", (torch.optim.Optimizer,), {
    "__init__": lambda s, p: torch.optim.Optimizer.__init__(s, p, {}),
    "step": torch.no_grad()(lambda s: [p.sub_(p.grad) for p in s.param_groups[0]["params"]]),
})(model.parameters())"""


def test_a_compiled_step_of_an_optimizer_of_pytorch_is_recorded(tmp_path):
    (tmp_path / "train.py").write_text(COMPILED_STEP.replace("{optimizer}", "torch.optim.SGD(model.parameters(), lr=0.01)"))
    under_watch = watched(["train.py"], tmp_path)
    assert under_watch.code == 0, under_watch.stderr
    with under_watch.open() as run:
        steps = run.steps()
        assert len(steps) == 12
        assert (steps.clipped_norm <= 1 + 1e-5).all()


def test_a_compiled_step_that_cannot_be_watched_is_said(tmp_path):
    (tmp_path / "train.py").write_text(COMPILED_STEP.replace("{optimizer}", OWN))
    under_watch = watched(["train.py"], tmp_path)
    assert under_watch.code == 0, under_watch.stderr
    assert "its step() was not seen" in under_watch.said[0]
    assert "TORCH_COMPILE_DISABLE=1" in under_watch.said[1]
