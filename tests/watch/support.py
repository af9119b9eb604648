"""Small loops, recorded in this process."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradclip.runs import Run
from gradclip.watch.api import record


def data(n=8):
    x = torch.randn(n, 3)
    return x, x.sum(dim=1, keepdim=True)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def steps_of(path, optimizer=None):
    with Run.open(path) as run:
        return run.steps(optimizer)


def train(model, optimizer, steps=3, *, clip=None):
    """An ordinary loop; returns the losses."""
    losses = []
    for _ in range(steps):
        x, y = data()
        loss = (model(x) - y).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture
def recording(tmp_path):
    """Start a recording; it is closed after the test in any case."""
    started = []

    def start(*args, **options):
        started.append(record(*args, **{"out": tmp_path / "runs", **options}))
        return started[-1]

    yield start
    for one in started:
        one.close()
