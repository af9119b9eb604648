"""Copies of an attached optimizer, in memory and on disk: they clip too, each with a history of its own."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

import gradclip
from gradclip.torch.attachment import attachment_of


def through_pickle(what):
    return pickle.loads(pickle.dumps(what))


def through_torch(what):
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "pickle": through_pickle, "torch.save": through_torch}


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def copied(request):
    return request.param


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def train(net, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        (10.0 ** (step % 3) * net(torch.ones(2, 3) * (step + 1))).square().sum().backward()
        optimizer.step()


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


MAKE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9),
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
@pytest.mark.parametrize("recipe", ["global_norm:0.1", "adagc", "stable_spam", "auto"])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("steps", [0, 4])
def test_a_copy_goes_on_as_the_original(copied, make, recipe, named, steps):
    net = model()
    optimizer = make(net.parameters())
    handle = gradclip.attach(optimizer, recipe, parameters=net if named else None)
    train(net, optimizer, range(steps))
    other, stepped = copied((net, optimizer))
    own = attachment_of(stepped)
    assert own is not None
    assert own is not handle
    train(other, stepped, range(steps, 8))
    assert handle.clipper.step == steps  # untouched
    assert own.clipper.names == handle.clipper.names
    assert own.optimizer is stepped
    train(net, optimizer, range(steps, 8))
    assert own.clipper.step == handle.clipper.step == 8
    if make is MAKE["fused"]:  # whose copies take no factor, for PyTorch does not copy that they could
        torch.testing.assert_close(weights(net), weights(other), rtol=1e-6, atol=1e-9)
    else:
        assert torch.equal(weights(net), weights(other))
        assert repr(own.state_dict()) == repr(handle.state_dict())


def test_a_copy_of_a_copy_too_and_each_is_detached_alone(copied):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    gradclip.attach(optimizer, "global_norm:0.5")
    first = copied((net, optimizer))
    second = copied(first)
    attachment_of(first[1]).detach()
    assert attachment_of(copied(first[1])) is None
    for (one, stepped), clips in ((first, False), (second, True), ((net, optimizer), True)):
        (1000 * one(torch.ones(2, 3))).sum().backward()
        stepped.step()
        norm = float(torch.cat([p.grad.flatten() for p in one.parameters()]).norm())
        assert (norm == pytest.approx(0.5)) is clips


def test_the_handle_goes_with_its_optimizer(copied):
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    other, own = copied((optimizer, gradclip.attach(optimizer, "global_norm:0.5")))
    assert own.optimizer is other
    assert attachment_of(other) is own
    own.detach()
    assert attachment_of(other) is None


def test_a_hook_that_is_registered_on_a_copy_takes_no_others_place(copied, monkeypatch):
    """Hooks are numbered, and another process begins at 0."""
    optimizer = torch.optim.SGD(model().parameters(), lr=1.0)
    gradclip.attach(optimizer, "global_norm:0.5")
    number = next(iter(optimizer._optimizer_step_pre_hooks))
    monkeypatch.setattr(RemovableHandle, "next_id", max(0, number - 1))
    other = copied(optimizer)
    for _ in range(3):
        other.register_step_pre_hook(lambda *step: None)
    assert len(other._optimizer_step_pre_hooks) == 4


def test_a_copy_without_its_model_has_no_second_model(copied):
    net = model()
    net.not_to_be_copied = lambda: None  # cannot be pickled
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    gradclip.attach(optimizer, "global_norm:0.5", parameters=net)
    other = copied(optimizer)
    late = nn.Parameter(torch.ones(2))
    other.add_param_group({"params": [late]})
    for p in (own := [p for group in other.param_groups for p in group["params"]]):
        p.grad = torch.ones_like(p)
    other.step()
    assert float(torch.cat([p.grad.flatten() for p in own]).norm()) == pytest.approx(0.5)
    assert attachment_of(other).result.names == ("0.weight", "0.bias", "1.weight", "1.bias", "group1.0")


def test_a_method_that_cannot_be_copied_is_said(copied):
    optimizer = torch.optim.SGD(model().parameters(), lr=1.0)
    gradclip.attach(optimizer, gradclip.global_norm(lambda step: 1.0 + step))
    with pytest.warns(RuntimeWarning, match=r"the copy of this SGD does not clip.*gradclip\.attach\(copy"):
        other = copied(optimizer)
    assert attachment_of(other) is None


def test_a_shallow_copy_shares_what_it_clips_with():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.0, fused=True)
    handle = gradclip.attach(optimizer, "global_norm:0.5")
    other = copy.copy(optimizer)
    (1000 * net(torch.ones(2, 3))).sum().backward()
    other.step()
    assert handle.clipper.step == 1
    assert float(torch.cat([p.grad.flatten() for p in net.parameters()]).norm()) == pytest.approx(0.5)


def test_the_state_of_the_optimizer_says_nothing_of_it():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    plain = torch.optim.SGD(model().parameters(), lr=1.0)
    gradclip.attach(optimizer, "global_norm:0.5")
    assert optimizer.state_dict() == plain.state_dict()


@pytest.mark.parametrize("target", ["model", "optimizer", "parameters"])
def test_a_clipper_can_be_copied(copied, target):
    net = model()
    what = {"model": net, "optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "parameters": list(net.parameters())}
    clipper = gradclip.Clipper(what[target], "adagc")
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    clipper.clip_()
    other = copied(clipper)
    for one in (clipper, other):
        for p in one.parameters:
            p.grad = torch.full_like(p, 3.0)
        one.clip_()
    assert repr(other.state_dict()) == repr(clipper.state_dict())
    assert all(torch.equal(a.grad, b.grad) and a is not b for a, b in zip(clipper.parameters, other.parameters, strict=True))
