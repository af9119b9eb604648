"""Optimizers inside optimizers, and optimizers inside backward: one step of the training is recorded once."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import gradclip
from gradclip.clipping import Clipping
from gradclip.runs import Run
from gradclip.runs.writer import RunWriter
from gradclip.watch.observe.patches import Patches
from gradclip.watch.observe.replace_clipping import ReplaceClipping
from gradclip.watch.observe.session import Session
from gradclip.watch.record.recorder import Recorder
from tests.watch.support import data, net, steps_of, train


def groups_of(*optimizers):
    return [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]


class Around(torch.optim.Optimizer):
    """A wrapper that is an optimizer itself, around one or several that it keeps where it is told."""

    def __init__(self, *inner, hidden=False):
        super().__init__(groups_of(*inner), {})
        self.inner = (lambda: inner) if hidden else inner[0] if len(inner) == 1 else list(inner)

    def step(self, closure=None):
        inner = self.inner() if callable(self.inner) else self.inner
        for one in inner if isinstance(inner, (list, tuple)) else [inner]:
            one.step(closure)


class HalfSteps(torch.optim.Optimizer):
    """SAM: ``step(closure)`` climbs, evaluates again, and steps from where it was."""

    def __init__(self, parameters, **options):
        super().__init__(parameters, options)
        self.base = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    def step(self, closure=None):
        before = [p.detach().clone() for p in groups_of(self)]
        with torch.no_grad():
            for p in groups_of(self):
                p.add_(p.grad, alpha=0.05)
        self.zero_grad()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for p, old in zip(groups_of(self), before, strict=True):
                p.copy_(old)
        self.base.step()


def sgd(parameters, lr=0.1):
    return torch.optim.SGD(parameters, lr=lr)


WRAPPED = {
    "one": lambda model: Around(sgd(model.parameters())),
    "one in one": lambda model: Around(Around(sgd(model.parameters()))),
    "one that no attribute shows": lambda model: Around(sgd(model.parameters()), hidden=True),
    "two parts": lambda model: Around(sgd(model[0].parameters()), sgd(model[2].parameters())),
}


@pytest.mark.parametrize("made_before", [True, False], ids=["made before", "made under watch"])
@pytest.mark.parametrize("name", WRAPPED)
def test_a_step_within_a_step_is_recorded_once(name, made_before, recording):
    model = net()
    optimizer = WRAPPED[name](model) if made_before else None
    running = recording()
    optimizer = optimizer or WRAPPED[name](model)
    norms = []
    for _ in range(4):
        optimizer.zero_grad()
        x, y = data()
        (model(x) - y).square().mean().backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.1)))
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert len(run.optimizers) == 1
        steps = run.steps()
        assert steps.norm == pytest.approx(norms, rel=1e-5)
        assert steps.clipped_norm == pytest.approx([min(norm, 0.1) for norm in norms], rel=1e-4)
        last = run.events()[-1][-1]
        assert [event.kind for event in last].count("step") == 1
        assert [event.kind for event in last].count("clip") == 1
        assert run.meta["unstepped"] == []


def test_one_that_is_inside_and_steps_alone_too(recording):
    """What an exception has ended does not count as an outer step."""

    class Fails(Around):
        def step(self, closure=None):
            raise ValueError("not today")

    model = net()
    inner = sgd(model.parameters())
    outer = Fails(inner, hidden=True)
    running = recording()
    with pytest.raises(ValueError, match="not today"):
        outer.step()
    train(model, inner, 3)
    running.close()
    assert len(steps_of(running.path)) == 3


def test_sharpness_aware_steps_with_a_closure(recording):
    model = net()
    running = recording()
    optimizer = HalfSteps(model.parameters(), lr=0.1)
    x, y = data()
    seen = []

    def closure():
        loss = (model(x) - y).square().mean()
        loss.backward()
        seen.append((loss.item(), float(torch.stack([p.grad.norm() for p in model.parameters()]).norm())))
        return loss

    for _ in range(3):
        optimizer.zero_grad()
        closure()
        optimizer.step(closure)
    running.close()
    steps = steps_of(running.path)
    assert steps.loss == pytest.approx([loss for loss, _ in seen[1::2]], rel=1e-5)
    assert steps.norm == pytest.approx([norm for _, norm in seen[1::2]], rel=1e-5)


def per_parameter(model, zero=True):
    """Give each parameter an optimizer of its own, which steps inside backward."""
    optimizers = {p: sgd([p], 0.01) for p in model.parameters()}

    def act(p):
        optimizers[p].step()
        if zero:
            optimizers[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(act)
    return optimizers


def test_steps_inside_backward_are_one(recording):
    torch.manual_seed(0)
    model, losses = net(), []
    twin = copy.deepcopy(model)
    running = recording()
    optimizers = per_parameter(model)
    want = []
    for _ in range(5):
        x, y = data()
        grads = torch.autograd.grad((twin(x) - y).square().mean(), list(twin.parameters()))
        want.append(float(torch.stack([grad.double().norm() for grad in grads]).norm()))
        with torch.no_grad():
            for p, grad in zip(twin.parameters(), grads, strict=True):
                p -= 0.01 * grad  # noqa: PLW2901
        loss = (model(x) - y).square().mean()
        loss.backward()
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert len(optimizers) == 4
    running.close()
    with Run.open(running.path) as run:
        numbers = [number for number in run.optimizers if len(run.tensors_of(number)) == 4]
        assert len(numbers) == 1
        steps = run.steps(numbers[0])
        assert steps.norm == pytest.approx(want, rel=1e-5)
        assert steps.loss == pytest.approx(losses, rel=1e-6)
        assert steps.missing["clipped"].all()  # each came too late
        assert {t.name for t in run.tensors_of(numbers[0])} == {name for name, _ in model.named_parameters()}
        kinds = [event.kind for event in run.events()[-1][-1]]
        assert kinds == ["clip", "forward", "backward", "step"]
    for p, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, other)


def test_attached_steps_inside_backward(recording):
    model = net()
    running = recording()
    for optimizer in per_parameter(model).values():
        gradclip.attach(optimizer, "global_norm:0.001")
    for _ in range(3):
        x, y = data()
        (model(x) - y).square().mean().backward()
    running.close()
    with Run.open(running.path) as run:
        (number,) = {owner for _, owner, _ in run.events()}
        steps = run.steps(number)
        assert len(steps) == 3
        assert steps.clipped.all()
        assert steps.clipped_norm == pytest.approx([0.001 * 2] * 3, rel=1e-4)  # four tensors, each to 0.001


def test_checkpointing_inside_backward_is_no_backward_of_its_own(recording):
    model = net()
    running = recording()
    optimizer = sgd(model.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        hidden = torch.utils.checkpoint.checkpoint(model, data()[0].requires_grad_(), use_reentrant=True)
        hidden.square().mean().backward()
        optimizer.step()
    running.close()
    with Run.open(running.path) as run:
        assert len(run.steps()) == 3
        assert [event.kind for event in run.events()[-1][-1]] == ["zero_grad", "forward", "backward", "step"]


@pytest.mark.parametrize("name", WRAPPED)
def test_clipping_in_place_of_the_scripts_own_is_done_once(tmp_path, name):
    """The first step has a gradient of norm 16000, and is one of length 1."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Identity(), nn.Linear(1, 1, bias=False))
    optimizer = WRAPPED[name](model)
    session = Session(Recorder(lambda: RunWriter.create(tmp_path)))
    instead = ReplaceClipping(Clipping.parse("global_norm:1.0"), pytest.fail)
    patches = Patches(lambda: session, instead, pytest.fail)
    try:
        for _ in range(3):
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.zero_grad()
            (1000 * model(torch.ones(8, 4))).sum().backward()
            optimizer.step()
            moved = torch.stack([(p.detach() - b).norm() for p, b in zip(model.parameters(), before, strict=True)]).norm()
            assert float(moved) == pytest.approx(0.1, rel=1e-4)
    finally:
        patches.remove()
        session.close()
