"""What the watching does wrong never reaches the script, and what was recorded before is kept."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradclip.clipping import Clipping
from gradclip.watch.observe.clip_calls import ClipCalls
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.replace_clipping import ReplaceClipping
from gradclip.watch.observe.session import Session
from tests.watch.support import net, steps_of, train

METHODS = ["optimizer_made", "before_backward", "after_backward", "before_step", "after_step", "zero_grad"]
CALLED = [*((Session, method) for method in METHODS), (ClipCalls, "before"), (ClipCalls, "after")]


@pytest.mark.parametrize(("owner", "method"), CALLED)
def test_a_session_that_raises(owner, method, recording, monkeypatch, capsys):
    model = net()
    running = recording(model)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 2, clip=1.0)

    def fail(*args):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(owner, method, fail)
    assert len(train(model, torch.optim.SGD(model.parameters(), lr=0.1), 3, clip=1.0)) == 3
    running.close()
    said = capsys.readouterr().err
    assert said == "gradclip: watching stopped, training goes on: ZeroDivisionError: a mistake of ours\n"
    assert len(steps_of(running.path)) >= 2


def test_a_session_that_raises_in_a_closure_and_with_a_scaler(recording, monkeypatch, capsys):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording(model, optimizer)
    for method in ("before_evaluation", "after_evaluation", "scaled", "unscaled", "before_scaler_step", "after_scaler_step"):
        monkeypatch.setattr(Session, method, None)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.ones(2, 3)).sum()).backward()
    scaler.step(optimizer)
    optimizer.step(lambda: model(torch.ones(2, 3)).sum().backward())
    assert capsys.readouterr().err.count("gradclip: ") == 1


def test_errors_of_torch_are_the_scripts_own(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    with pytest.raises(RuntimeError, match="does not require grad"):
        torch.ones(1).sum().backward()
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'max_norm'"):
        nn.utils.clip_grad_norm_(model.parameters())
    with pytest.raises(TypeError):
        nn.utils.clip_grad_norm_(None, 1.0)
    with pytest.raises(TypeError):
        torch.amp.GradScaler("cpu").scale()
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    with pytest.raises(TypeError, match="'int' object is not callable"):
        optimizer.step(closure=3)
    running.close()


def test_a_script_goes_on_after_an_exception_in_a_closure(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    running = recording(model, optimizer)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    train(model, optimizer, 3)
    running.close()
    assert len(steps_of(running.path)) == 3


def test_a_recipe_that_cannot_be_applied_stops_the_script_before_its_first_step():
    said = []
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    instead = ReplaceClipping(Clipping.parse("group_norm:1.0,patterns=head.*"), said.append)
    with pytest.raises(SystemExit, match=r"^2$"):
        instead.clip_steps_of(optimizer)
    assert len(said) == 1
    assert said[0].startswith("--clip group_norm:1.0,patterns=head.* cannot be applied, so the script was stopped: ")


def test_patches_that_cannot_watch_call_through(recording):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = Session(None)
    patches = Patches(lambda: session, None, [].append)
    try:
        patches._pid = -1  # as in a forked child
        train(model, optimizer, 2, clip=1.0)
    finally:
        patches.remove()
    assert session.backwards == 0
