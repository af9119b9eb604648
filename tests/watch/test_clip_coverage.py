"""Which optimizers a clipping is about, how much of each, and what was called."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradclip
from gradclip.diagnosis.event_text import events_text
from gradclip.runs import Run
from tests.watch.support import data, net

CLIPPED = {
    "the first": (lambda a, b: a, [(0, 4, 4)], ""),
    "a part of the first": (lambda a, b: a[:3], [(0, 3, 4)], " (3 of 4 tensors)"),
    "the second": (lambda a, b: b, [(1, 4, 4)], " (optimizer 1)"),
    "a part of the second": (lambda a, b: b[1:2], [(1, 1, 4)], " (optimizer 1, 1 of 4 tensors)"),
    "both": (lambda a, b: [*b, *a], [(0, 4, 4), (1, 4, 4)], " (optimizers 0, 1)"),
    "a part of both": (lambda a, b: [*a, b[0]], [(0, 4, 4), (1, 1, 4)], " (optimizers 0, 1, 5 of 8 tensors)"),
    "nobody's": (lambda a, b: [nn.Parameter(torch.ones(1))], [(None, 1, 0)], " (no tensor that is trained)"),
    "none": (lambda a, b: iter(()), [(None, 0, 0)], " (no tensors)"),
}


def clips(path):
    with Run.open(path) as run:
        return [event for *_, events in run.events() for event in events if event.kind == "clip"]


def clipped(recording, clip, optimizers=2):
    """Clip between the backward and the steps of models with four tensors each, and return what is recorded of it."""
    running = recording()
    models = [net() for _ in range(optimizers)]
    stepping = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    sum(model(data()[0]).sum() for model in models).backward()
    clip(*(list(model.parameters()) for model in models))
    for optimizer in stepping:
        optimizer.step()
    running.close()
    return clips(running.path)


@pytest.mark.filterwarnings("ignore:`parameters` is an empty generator")
@pytest.mark.parametrize("name", CLIPPED)
def test_what_a_clip_says(name, recording):
    which, counts, words = CLIPPED[name]
    found = clipped(recording, lambda a, b: nn.utils.clip_grad_norm_(which(a, b), 1.0))
    assert [(event.optimizer, event.reached, event.owned) for event in found] == counts
    assert len({event.sequence for event in found}) == 1
    assert {(event.function, event.norm, event.threshold) for event in found} == {("clip_grad_norm_", 2.0, 1.0)}
    assert events_text(found) == [f"clip (clip_grad_norm_{words})"]


@pytest.mark.parametrize(("share", "words"), [(4, ""), (3, " (3 of 4 tensors)")])
def test_with_one_optimizer_there_is_no_number(share, words, recording):
    found = clipped(recording, lambda a: nn.utils.clip_grad_norm_(a[:share], 1.0), optimizers=1)
    assert events_text(found) == [f"clip (clip_grad_norm_{words})"]


CALLED = {
    "clip_grad_norm_ norm_type=1": (lambda p: nn.utils.clip_grad_norm_(p, 1, 1), 1.0, 1.0),
    "clip_grad_norm_ norm_type=inf": (lambda p: nn.utils.clip_grad_norm_(p, 1, math.inf), math.inf, 1.0),
    "clip_grad_norm_ max_norm=inf": (lambda p: nn.utils.clip_grad_norm_(p, math.inf), 2.0, math.inf),
    "clip_grad_norm_": (lambda p: nn.utils.clip_grad_norm_(p, torch.tensor(1.0)), 2.0, None),
    "clip_grad_value_": (lambda p: nn.utils.clip_grad_value_(p, 0.5), None, 0.5),
    "global_norm:1.0": (lambda p: gradclip.Clipper(p, "global_norm:1.0").clip_(), None, 1.0),
    "global_norm:inf": (lambda p: gradclip.Clipper(p, "global_norm:inf").clip_(), None, math.inf),
    "zclip": (lambda p: gradclip.Clipper(p, "zclip").clip_(), None, None),
}


@pytest.mark.parametrize("words", CALLED)
def test_what_was_called(words, recording):
    call, norm, threshold = CALLED[words]
    (found,) = clipped(recording, call, optimizers=1)
    assert (found.norm, found.threshold) == (norm, threshold)
    assert events_text([found]) == [f"clip ({words})"]


def test_two_calls_are_two_events_wherever_they_come_from(recording):
    found = clipped(recording, lambda *both: [nn.utils.clip_grad_norm_(one, 1.0) for one in both])
    assert [event.optimizer for event in found] == [0, 1]
    assert len({event.sequence for event in found}) == 2
    assert events_text(found) == ["clip (clip_grad_norm_)", "clip (clip_grad_norm_ (optimizer 1))"]


def test_a_limit_that_moves_is_kept_for_a_while(recording):
    running = recording()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(200):
        model(data()[0]).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), math.inf if step == 150 else 1.0 + step)
        optimizer.step()
    running.close()
    limits = [event.threshold for event in clips(running.path)]
    assert limits[:40] == [1.0 + step for step in range(40)]
    assert set(limits[60:]) == {None, math.inf}
    assert limits[150] == math.inf
    assert len({event.place for event in clips(running.path)}) == 1
    with Run.open(running.path) as run:
        assert len({events for *_, events in run.events()}) < 60
        assert run.steps().threshold[[0, 100, 199]].tolist() == [1.0, 101.0, 200.0]
