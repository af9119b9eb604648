"""Optimizers that never step, and what comes after the last step."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from gradclip.runs import Run
from tests.watch.support import data, net, train


def idle(running):
    """Close a recording; return what its file says."""
    running.close()
    with Run.open(running.path) as run:
        return run.meta["unstepped"], run.meta["backwards_after"]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_all_is_well_in_an_ordinary_run(recording):
    model = net()
    running = recording()
    train(model, sgd(model.parameters()), 3)
    assert idle(running) == ([], 0)


def test_an_optimizer_that_is_forgotten(recording):
    body, head = nn.Linear(3, 4), nn.Linear(4, 1)
    running = recording()
    one, two = sgd(body.parameters()), sgd(head.parameters())
    for _ in range(3):
        two.zero_grad()
        head(body(data()[0])).sum().backward()
        one.step()
    two.load_state_dict(two.state_dict())
    assert idle(running) == ([{"optimizer": 1, "tensors": 2}], 0)


def test_one_that_is_gone_at_the_end(recording):
    def training():
        body, head = nn.Linear(3, 4), nn.Linear(4, 1)
        one, two = sgd(body.parameters()), sgd(head.parameters())
        for _ in range(5):
            two.zero_grad()
            one.zero_grad()
            head(body(data()[0])).sum().backward()
            one.step()

    running = recording()
    training()
    gc.collect()
    assert idle(running) == ([{"optimizer": 1, "tensors": 2}], 0)


@pytest.mark.parametrize("when", [0, 5])
def test_gradients_that_are_there_for_a_while(when, recording):
    body, head = nn.Linear(3, 4), nn.Linear(4, 1)
    running = recording()
    one, _two = sgd(body.parameters()), sgd(head.parameters())
    head.requires_grad_(False)
    for step in range(9):
        head.requires_grad_(when <= step < when + 4)
        head(body(data()[0])).sum().backward()
        one.step()
        head.zero_grad()
        body.zero_grad()
    assert idle(running) == ([{"optimizer": 1, "tensors": 2}], 0)


def test_one_whose_parameters_get_no_gradients(recording):
    model, other = net(), net()
    running = recording()
    optimizer, unused = sgd(model.parameters()), sgd(other.parameters())
    train(model, optimizer, 3)
    assert unused is not None
    assert idle(running) == ([], 0)


@pytest.mark.parametrize("first", [True, False], ids=["made before", "made after"])
def test_one_whose_parameters_another_one_steps(first, recording):
    """As one that is wrapped around another, or that was replaced."""
    model = net()
    running = recording()
    made = [sgd(model.parameters())]
    if not first:
        train(model, made[0], 3)
    made.append(sgd(model.parameters()))
    train(model, made[1 if first else 0], 3)
    assert idle(running) == ([], 0)


def test_a_part_of_its_parameters_is_left(recording):
    model = net()
    running = recording()
    _all, head = sgd(model.parameters()), sgd(model[2].parameters())
    train(model, head, 3)
    assert idle(running) == ([{"optimizer": 0, "tensors": 2}], 0)


def test_one_whose_state_is_loaded_has_stepped(recording):
    model = net()
    running = recording()
    optimizer = sgd(model.parameters())
    train(model, optimizer, 3)
    optimizer.load_state_dict(optimizer.state_dict())
    model(data()[0]).sum().backward()
    assert idle(running) == ([], 1)


def test_one_that_the_recording_is_asked_for(recording):
    model = net()
    optimizer = sgd(model.parameters())
    running = recording(model, optimizer)
    model(data()[0]).sum().backward()
    assert idle(running) == ([{"optimizer": 0, "tensors": 4}], 1)


def test_backward_calls_that_no_step_follows(recording):
    model = net()
    running = recording()
    train(model, sgd(model.parameters()), 3)
    for _ in range(4):
        model(data()[0]).sum().backward()
    assert idle(running) == ([], 4)


def test_steps_of_an_optimizer_that_is_not_watched_count(recording):
    models = [net(), net()]
    optimizers = [sgd(model.parameters()) for model in models]
    running = recording(None, optimizers[0])
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 2)
    assert idle(running) == ([], 0)


def test_a_dropped_step_is_one(recording):
    model = net()
    running = recording()
    optimizer = sgd(model.parameters())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(data()[0]).sum() * torch.inf).backward()
    scaler.step(optimizer)
    assert idle(running) == ([], 0)


def test_a_loop_by_hand(recording):
    w = torch.ones(3, requires_grad=True)
    running = recording()
    for _ in range(3):
        w.square().sum().backward()
        w.data -= 0.1 * w.grad
        w.grad = None
    assert idle(running) == ([], 0)
