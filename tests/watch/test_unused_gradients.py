"""What was thrown away does not count, and a clipping counts only for what it reached."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradclip.runs import Run
from gradclip.watch.end.not_seen import no_clipping, no_steps
from tests.watch.support import data, net

RESETS = {
    "zero_grad": lambda model, optimizer: optimizer.zero_grad(),
    "zero_grad to zeros": lambda model, optimizer: optimizer.zero_grad(set_to_none=False),
    "of the module": lambda model, optimizer: model.zero_grad(),
    "of the module, to zeros": lambda model, optimizer: model.zero_grad(set_to_none=False),
    "None by hand": lambda model, optimizer: [setattr(p, "grad", None) for p in model.parameters()],
    "zeros by hand": lambda model, optimizer: [p.grad.zero_() for p in model.parameters()],
}
CLIPS = {"not clipped": lambda model: None, "clipped": lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1)}


def norm_of(model):
    return float(torch.stack([p.grad.double().norm() for p in model.parameters()]).norm())


@pytest.mark.parametrize("worst", [1e4, math.inf, math.nan])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("reset", RESETS)
def test_a_bad_batch_that_is_dropped_leaves_nothing(reset, clip, worst, recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses, norms = [], []
    for step in range(6):
        x, y = data()
        loss = (model(x) - y).square().mean() * (worst if step in (2, 3) else 1.0)
        loss.backward()
        norm = norm_of(model)
        CLIPS[clip](model)
        if step in (2, 3):
            RESETS[reset](model, optimizer)
            continue
        losses.append(loss.item())
        norms.append(norm)
        optimizer.step()
        optimizer.zero_grad()
    running.close()
    with Run.open(running.path) as run:
        steps = run.steps()
        assert steps.loss == pytest.approx(losses, rel=1e-5)
        assert steps.norm == pytest.approx(norms, rel=1e-5)
        assert not steps.nonfinite.any()
        assert [event.kind for *_, events in run.events() for event in events].count("unused") == 2


@pytest.mark.parametrize("micro", [3, 200])
def test_micro_batches_that_count_are_added(micro, recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    totals = []
    for step in range(3):
        total = 0.0
        for i in range(micro):
            loss = (model(data()[0])).square().mean() / micro
            loss.backward()
            total += loss.item()
            if step == 1 and i == micro // 2:
                optimizer.zero_grad()
                total = 0.0
        totals.append(total)
        optimizer.step()
        optimizer.zero_grad()
    running.close()
    with Run.open(running.path) as run:
        assert run.steps().loss == pytest.approx(totals, rel=1e-4)


def test_of_two_optimizers_only_the_one_that_was_reset_forgets(recording):
    trunk, one, other = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(4, 1)
    running = recording()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (one, other)]
    first = one(trunk(data()[0])).square().sum()
    first.backward()
    both = one(trunk(data()[0])).square().sum() + other(trunk(data()[0])).square().sum()
    optimizers[0].zero_grad()
    both.backward()
    for optimizer in optimizers:
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert run.steps(0).loss == pytest.approx([both.item()], rel=1e-5)
        assert run.steps(1).loss == pytest.approx([first.item() + both.item()], rel=1e-5)


def test_a_gradient_that_has_moved_the_weights_was_used(recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        model(data()[0]).square().mean().backward()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.05 * p.grad  # noqa: PLW2901
        optimizer.zero_grad()
        loss = model(data()[0]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    running.close()
    with Run.open(running.path) as run:
        assert run.steps().loss[-1] == pytest.approx(loss.item(), rel=1e-5)
        assert not any(event.kind == "unused" for *_, events in run.events() for event in events)


def replaced(model):
    """Another gradient takes the place of the clipped one."""
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    for p in model.parameters():
        p.grad = torch.ones_like(p)


IDLE = {
    "of gradients": lambda model: nn.utils.clip_grad_norm_([p.grad for p in model.parameters()], 0.01),
    "of a state dict": lambda model: nn.utils.clip_grad_norm_(list(model.state_dict().values()), 0.01),
    "of another model": lambda model: nn.utils.clip_grad_norm_(net().parameters(), 0.01),
    "of what is replaced": replaced,
}


@pytest.mark.parametrize("name", IDLE)
def test_a_clipping_that_reaches_nothing_is_none(name, recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    for _ in range(4):
        optimizer.zero_grad()
        model(data()[0]).square().mean().backward()
        IDLE[name](model)
        norms.append(norm_of(model))
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        steps = run.steps()
        assert steps.missing["clipped"].all()
        assert steps.norm == pytest.approx(norms, rel=1e-5)
    assert running._session.recorder.totals.clip_attempts == 0


@pytest.mark.parametrize("where", ["before backward", "after the step"])
def test_a_clipping_without_gradients_is_none(where, recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms = []
    for _ in range(4):
        if where == "before backward":
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        for p, grad in zip(  # no backward() that could be seen gives these
            model.parameters(), torch.autograd.grad(model(data()[0]).square().mean(), list(model.parameters())), strict=True
        ):
            p.grad = grad
        norms.append(norm_of(model))
        optimizer.step()
        optimizer.zero_grad()
        if where == "after the step":
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    running.close()
    with Run.open(running.path) as run:
        steps = run.steps()
        assert steps.missing["clipped"].all()
        assert steps.norm == pytest.approx(norms, rel=1e-5)


def scaled_by_hand(model):
    """What is clipped, and then divided, was clipped."""
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    for p in model.parameters():
        p.grad.div_(2)


def test_a_clipping_that_something_follows_counts(recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        model(data()[0]).square().mean().backward()
        scaled_by_hand(model)
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert run.steps().clipped.all()
        assert run.steps().clipped_norm == pytest.approx([0.005] * 4, rel=1e-4)


CHANGES = {
    "nothing": (lambda model: None, 0),
    "clamped by hand": (lambda model: [p.grad.clamp_(-0.01, 0.01) for p in model.parameters()], 8),
    "clamped through data": (lambda model: [p.grad.data.clamp_(-0.01, 0.01) for p in model.parameters()], 5),
    "clipped": (lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.01), 0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_gradients_and_is_no_call_that_is_known(name, recording):
    change, steps = CHANGES[name]
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(8):
        optimizer.zero_grad()
        (10 * model(data()[0])).square().mean().backward()
        change(model)
        optimizer.step()
    assert running._session.unknown_changes == steps
    said = no_clipping(running._session)
    assert said.startswith("no clipping was seen")
    assert ("something changed the gradients" in said) == (steps > 0)


def test_hooks_are_told_of(recording):
    model = net()
    model[0].weight.register_hook(lambda grad: grad.clamp(-1, 1))
    model[2].bias.register_post_accumulate_grad_hook(lambda p: print(p.grad.clamp_(-1, 1).shape))
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(data()[0]).sum().backward()
        optimizer.step()
    assert no_clipping(running._session) == "no clipping was seen; hooks on 2 parameters may change gradients"


@pytest.mark.parametrize("moves", [True, False])
def test_a_step_that_was_not_seen_is_told_by_the_weights(moves, recording):
    model = net()
    running = recording()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(data()[0]).sum().backward()
        if moves:  # as a compiled step does, which calls no hook
            type(optimizer).step.__wrapped__(optimizer)
    first, *_ = no_steps(running._session)
    assert "backward() was called 3 times" in first
    assert ("the weights of SGD changed, but its step() was not seen" in first) == moves


def test_nothing_at_all():
    assert "backward() was called 0 times, and no optimizer" in no_steps(None)[0]
