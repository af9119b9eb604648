"""Where in the script each kind of event happens, as the run file says it."""

from __future__ import annotations

import os
import runpy
import textwrap

import pytest
import torch

from gradclip.runs import Event, Run
from gradclip.watch.observe import call_sites
from gradclip.watch.observe.call_sites import CallSites

SCRIPT = """
import torch
from torch import nn

model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def closure():
    return model(torch.ones(2, 3)).sum()


def train(backward):
    for step in range(3):
        optimizer.zero_grad()
        backward(closure())
        nn.utils.clip_grad_norm_(
            model.parameters(),
            1.0,
        )
        if step == 1:
            torch.nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()


train(torch.Tensor.backward)
optimizer.step()
"""


def places_of(path):
    """The places in a run file, by what was called there."""
    with Run.open(path) as run:
        events = [event for *_, events in run.events() for event in events]
    return {f"{event.kind} {event.function}".strip(): event.place for event in events if event.place}


def line_of(words):
    return next(number for number, line in enumerate(SCRIPT.splitlines(), 1) if words in line)


def run_script(recording, path, text=SCRIPT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    running = recording()
    runpy.run_path(str(path))
    running.close()
    return places_of(running.path)


def test_the_first_place_of_each_event_is_the_scripts_own(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_script(recording, tmp_path / "code" / "train.py") == {
        "zero_grad": f"code/train.py:{line_of('zero_grad')}",
        "backward": f"code/train.py:{line_of('backward(closure')}",
        "clip clip_grad_norm_": f"code/train.py:{line_of('clip_grad_norm_')}",
        "clip clip_grad_value_": f"code/train.py:{line_of('clip_grad_value_')}",
        "step": f"code/train.py:{line_of('optimizer.step()')}",
    }


def test_a_file_elsewhere_is_named_in_full(recording, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    script = tmp_path / "here_too" / "train.py"
    assert run_script(recording, script)["step"] == f"{script}:{line_of('optimizer.step()')}"


def test_a_script_that_changes_its_folder(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moves = f"import os; os.chdir({str(tmp_path / 'code')!r})"
    assert run_script(recording, tmp_path / "code" / "train.py", moves + SCRIPT)["step"].startswith("code/train.py:")


def test_wrappers_of_the_standard_library_are_not_the_script(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = textwrap.dedent("""
        import contextlib, functools
        import torch

        w = torch.ones(2, requires_grad=True)
        optimizer = torch.optim.SGD([w], lr=0.1)

        with contextlib.ExitStack() as stack:
            stack.callback(w.sum().backward)
        functools.singledispatch(optimizer.step)(None)
    """)
    found = run_script(recording, tmp_path / "train.py", text)
    with_ = text.splitlines().index("with contextlib.ExitStack() as stack:") + 1
    assert found == {"backward": f"train.py:{with_}", "step": f"train.py:{with_ + 2}"}


def test_code_without_a_file(recording):
    running = recording()
    exec(compile(SCRIPT, "<stdin>", "exec"), {"__name__": "__main__"})
    running.close()
    assert places_of(running.path)["step"] == f"<stdin>:{line_of('optimizer.step()')}"


def test_a_run_that_was_never_closed_has_them(recording):
    w = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    running = recording()
    w.sum().backward()
    optimizer.step()
    running.flush()
    assert set(places_of(running.path)) == {"backward", "step"}


def test_they_are_looked_for_when_there_is_a_new_one_alone(monkeypatch):
    seen = CallSites()
    walks = []
    walk = seen._in_script
    monkeypatch.setattr(seen, "_in_script", lambda: walks.append(1) or walk())
    for _ in range(3):
        placed = [seen.placed(event) for event in (Event("forward"), Event("clip", 0, "agc:0.01"), Event("step", 0))]
        assert [bool(event.place) for event in placed] == [False, True, True]
    assert len(walks) == 2


def test_they_are_bounded():
    seen = CallSites()
    placed = [seen.placed(Event("clip", 0, "clip_grad_norm_", norm=i)) for i in range(1000)]
    assert [bool(event.place) for event in placed] == [True] * 100 + [False] * 900


def test_a_call_that_comes_from_nowhere(monkeypatch):
    monkeypatch.setattr(call_sites, "NOT_THE_SCRIPT", ("",))
    assert CallSites().placed(Event("step", 0)) == Event("step", 0)


@pytest.mark.skipif(os.name != "posix", reason="a folder that is in use cannot be deleted there")
def test_a_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert CallSites().placed(Event("step", 0)).place.partition(":")[0].endswith("test_call_sites.py")
