"""Gradients that are never reset, and every healthy loop that only looks like it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip
from gradclip.runs import Run
from tests.watch.support import data, net

STEPS = 4


def loss_of(model):
    x, y = data()
    return (model(x) - y).pow(2).mean()


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), lr=0.01, **options)


def stale(path):
    """The step numbers and optimizers of the event, and that a step follows right behind."""
    found = []
    with Run.open(path) as run:
        for step, owner, events in run.events():
            for event, following in zip(events, [*events[1:], None], strict=True):
                if event.kind == "stale":
                    assert (following.kind, following.optimizer, owner) == ("step", event.optimizer, event.optimizer)
                    found.append((step, event.optimizer))
    return found


def stepping(reset, before=False):
    """Return a loop that resets as it is told to."""

    def loop(model, optimizer):
        for _ in range(STEPS):
            if before:
                reset(model, optimizer)
            loss_of(model).backward()
            optimizer.step()
            if not before:
                reset(model, optimizer)

    return loop


def by_hand(change):
    return lambda model, optimizer: [change(p) for p in model.parameters()]


def accumulation(model, optimizer):
    for _ in range(STEPS):
        for _ in range(3):
            (loss_of(model) / 3).backward()
        optimizer.step()
        optimizer.zero_grad()


def accumulation_clipped(model, optimizer):
    for _ in range(STEPS):
        for _ in range(3):
            (loss_of(model) / 3).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)


def dropped_steps(model, optimizer):
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(STEPS):
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        scaler.scale(loss_of(model) * (1e38 if step in (1, 2) else 1)).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        scaler.step(optimizer)
        scaler.update()


def skipped(model, optimizer):
    """Each step is skipped, and the script itself resets nothing."""
    handle = gradclip.attach(optimizer, "global_norm:1.0,nonfinite=skip")
    (loss_of(model) * torch.nan).backward()
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    for _ in range(STEPS - 1):
        (loss_of(model) * torch.nan).backward()
        optimizer.step()
    assert handle.result.skipped
    handle.detach()


def closures(model, optimizer):
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure():
        lbfgs.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    for _ in range(STEPS):
        lbfgs.step(closure)


def inside_backward(model, optimizer):
    """One optimizer a tensor, which steps as soon as its gradient is there."""
    optimizers = {p: torch.optim.SGD([p], lr=0.01) for p in model.parameters()}

    def step(p):
        optimizers[p].step()
        optimizers[p].zero_grad(set_to_none=False)

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for _ in range(STEPS):
        loss_of(model).backward()


def assigned(model, optimizer):
    """One model's gradients are assigned, another one's appear in backward."""
    other = net()
    second = sgd(other)
    for _ in range(STEPS):
        for p, grad in zip(model.parameters(), torch.autograd.grad(loss_of(model), list(model.parameters())), strict=True):
            p.grad = grad
        optimizer.step()
        second.zero_grad()
        loss_of(other).backward()
        second.step()


def assigned_for_inference(model, optimizer):
    """Such tensors have no version."""
    for _ in range(STEPS):
        with torch.inference_mode():
            for p in model.parameters():
                p.grad = torch.ones_like(p)
        optimizer.step()


def frozen(model, optimizer):
    """The first layer is frozen half-way, and keeps the gradient that it had."""
    for step in range(STEPS):
        if step == 2:
            model[0].requires_grad_(False)
        for p in model.parameters():
            p.grad = None if p.requires_grad else p.grad
        loss_of(model).backward()
        optimizer.step()


def gan(set_to_none, zero=lambda model: None):
    """The generator's backward adds to the discriminator's gradients, which are reset later."""

    def loop(model, optimizer):
        generator = nn.Linear(2, 3)
        second = sgd(generator)
        for _ in range(STEPS):
            fake = generator(torch.randn(4, 2))
            if set_to_none is not None:
                optimizer.zero_grad(set_to_none)
            zero(model)
            model(torch.randn(4, 3)).mean().backward()
            (-model(fake.detach()).mean()).backward()
            optimizer.step()
            second.zero_grad()
            model(fake).mean().backward()
            second.step()

    return loop


def zeroed(p):
    if p.grad is not None:
        p.grad.zero_()


def zeroed_unseen(p):
    if p.grad is not None:
        p.grad.data.zero_()


HEALTHY = {
    "before backward": stepping(lambda model, optimizer: optimizer.zero_grad(), before=True),
    "after the step": stepping(lambda model, optimizer: optimizer.zero_grad()),
    "in place": stepping(lambda model, optimizer: optimizer.zero_grad(set_to_none=False)),
    "by the module": stepping(lambda model, optimizer: model.zero_grad(), before=True),
    "None by hand": stepping(by_hand(lambda p: setattr(p, "grad", None))),
    "zeros by hand": stepping(by_hand(zeroed), before=True),
    "zeros through data": stepping(by_hand(zeroed_unseen)),
    "a step and no backward": lambda model, optimizer: [optimizer.step() for _ in range(STEPS)],
    "accumulation": accumulation,
    "accumulation, each clipped": accumulation_clipped,
    "dropped steps": dropped_steps,
    "skipped steps": skipped,
    "closures": closures,
    "inside backward": inside_backward,
    "assigned": assigned,
    "assigned for inference": assigned_for_inference,
    "frozen half-way": frozen,
    "a GAN": gan(set_to_none=True),
    "a GAN in place": gan(set_to_none=False),
    "a GAN through data": gan(None, lambda model: [zeroed_unseen(p) for p in model.parameters()]),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_what_resets_in_whichever_way_is_not_stale(name, recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    HEALTHY[name](model, optimizer)
    running.close()
    with Run.open(running.path) as run:
        assert len(run.steps()) >= STEPS
    assert stale(running.path) == []


def test_gradients_that_are_never_reset(recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    stepping(lambda *_: None)(model, optimizer)
    optimizer.step()  # no backward: the sum is as it was
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


def test_the_second_optimizer_alone(recording):
    models = [net(), net()]
    running = recording()
    optimizers = [sgd(model) for model in models]
    for _ in range(STEPS):
        optimizers[0].zero_grad()
        for model in models:
            loss_of(model).backward()
        for optimizer in optimizers:
            optimizer.step()
    running.close()
    assert stale(running.path) == [(step, 1) for step in range(1, STEPS)]


def test_a_discriminator_that_is_never_reset(recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    gan(None)(model, optimizer)
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


@pytest.mark.parametrize("micro", [1, 2])
def test_clipping_is_no_reset(micro, recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    for _ in range(STEPS):
        for _ in range(micro):
            loss_of(model).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)  # too late, and no reset either
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


def test_clipping_of_gradients_that_were_reset_in_place_before(recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    for step in range(STEPS):
        loss_of(model).backward()
        optimizer.step()
        if step:
            optimizer.zero_grad(set_to_none=False)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    running.close()
    assert stale(running.path) == [(1, 0)]


def test_mixed_precision_without_a_reset(recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        scaler.scale(loss_of(model)).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


def test_a_step_inside_backward_without_a_reset(recording):
    w = nn.Parameter(torch.ones(3))
    running = recording()
    optimizer = torch.optim.SGD([w], lr=0.1)
    w.register_post_accumulate_grad_hook(lambda p: optimizer.step())
    for _ in range(STEPS):
        w.square().sum().backward()
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


def test_a_gradient_that_is_zero_at_first(recording):
    """As that of a layer behind one that begins with zeros: kept, but it looks as if it had been zeroed unseen."""
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))
    running = recording()
    optimizer = torch.optim.SGD([a, b], lr=0.1)
    for _ in range(STEPS):
        (a * b - 1).square().sum().backward()
        optimizer.step()
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(2, STEPS)]


def test_a_frozen_parameter_does_not_stand_for_the_others(recording):
    model = net()
    loss_of(model).backward()
    model[0].requires_grad_(False)
    running = recording()
    optimizer = sgd(model)
    stepping(lambda *_: None)(model, optimizer)
    running.close()
    assert stale(running.path) == [(step, 0) for step in range(1, STEPS)]


def test_a_reset_that_is_forgotten_in_the_middle(recording):
    model = net()
    running = recording()
    optimizer = sgd(model)
    for step in range(8):
        if step not in (3, 5):
            optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    running.close()
    assert stale(running.path) == [(3, 0), (5, 0)]


def test_a_device_is_not_read_for_it_at_each_step(recording, monkeypatch):
    model = net()
    recording()
    optimizer = sgd(model)
    reads = []
    original = torch.Tensor.__float__
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: reads.append(tensor) or original(tensor))
    stepping(lambda model, optimizer: optimizer.zero_grad())(model, optimizer)
    assert not reads
    stepping(lambda *_: None)(model, optimizer)
    assert len(reads) == 1
    reads.clear()
    other = net()
    for _ in range(5):
        stepping(by_hand(zeroed_unseen))(other, sgd(other))
    assert len(reads) <= 5 * (STEPS - 1)
    one = sgd(other)
    reads.clear()
    for _ in range(5):
        stepping(by_hand(zeroed_unseen))(other, one)
    assert len(reads) == 5
