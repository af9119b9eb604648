"""Which optimizer a clip event is about, and how much of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradclip.runs import Run
from tests.watch.support import data, net

CLIPPED = {
    "the first": (lambda a, b: a, ""),
    "a part of the first": (lambda a, b: a[:3], " (3 of 4 tensors)"),
    "the second": (lambda a, b: b, " (optimizer 1)"),
    "a part of the second": (lambda a, b: b[1:2], " (optimizer 1, 1 of 4 tensors)"),
    "both": (lambda a, b: [*b, *a], " (optimizers 0, 1)"),
    "a part of both": (lambda a, b: [*a, b[0]], " (optimizers 0, 1, 5 of 8 tensors)"),
    "none": (lambda a, b: [nn.Parameter(torch.ones(1))], " (no tensor that is trained)"),
}


def details(path):
    with Run.open(path) as run:
        return [event.detail for _, events in run.events() for event in events if event.kind == "clip"]


@pytest.mark.parametrize("name", CLIPPED)
def test_what_a_clip_says(name, recording):
    which, words = CLIPPED[name]
    running = recording()
    models = [net(), net()]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    (models[0](data()[0]) + models[1](data()[0])).sum().backward()
    nn.utils.clip_grad_norm_(which(*(list(model.parameters()) for model in models)), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    running.close()
    assert details(running.path) == [f"clip_grad_norm_{words}"]


@pytest.mark.parametrize(("share", "words"), [(4, ""), (3, " (3 of 4 tensors)")])
def test_with_one_optimizer_there_is_no_number(share, words, recording):
    running = recording()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(data()[0]).sum().backward()
    nn.utils.clip_grad_norm_(list(model.parameters())[:share], 1.0)
    optimizer.step()
    running.close()
    assert details(running.path) == [f"clip_grad_norm_{words}"]
