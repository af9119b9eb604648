"""An optimizer or a model that gets other parameters while it trains: they are clipped, what was learnt of the others stays.

The reference is a clipper that had all parameters from the start, those to come without a gradient: a block without a gradient
has norm 0 and teaches nothing, so that its history begins when it gets its first.
"""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
from torch import nn

import gradclip

RECIPES = [
    "global_norm:0.5", "group_norm:0.5", "tensor_norm:0.5", "agc:0.01", "value:0.1", "normalize:0.5",
    "adagc", "zclip:warmup=3", "autoclip", "quantile:0.5,per_tensor=True", "aggc", "spam:warmup=2", "stable_spam",
    "norm_growth", "trust:0.1", "auto", "skip_step:window=4,after=2",
]  # fmt: skip


def three(seed=0):
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (4,), (2, 4))]


def sgd(*groups):
    return torch.optim.SGD([{"params": list(group)} for group in groups], lr=0.1)


def give_gradients(parameters, step, to):
    """The same for the same step; every third is a spike."""
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(parameters):
        grad = torch.randn(p.shape, generator=generator) * (50.0 if step % 3 == 2 else 0.5)
        p.grad = grad if i in to else None


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def run_both(recipe, change, before, after, reference_groups, attached_groups, steps=9):
    """Train with a clipper that knows all, and with an attachment whose optimizer changes at step 4."""
    known, late = three(), three()
    first = sgd(*([known[i] for i in group] for group in reference_groups))
    second = sgd(*([late[i] for i in group] for group in attached_groups))
    clipper, handle = gradclip.Clipper(first, recipe), gradclip.attach(second, recipe)
    for step in range(steps):
        if step == 4:
            change(second, late)
        to = before if step < 4 else after
        give_gradients(known, step, to)
        give_gradients(late, step, to)
        clipper.clip_()
        first.step()
        second.step()
        assert_same(known, late)
    return clipper, handle


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_group_that_joins(recipe):
    def join(optimizer, parameters):
        optimizer.add_param_group({"params": parameters[2:], "lr": 0.1})

    clipper, handle = run_both(recipe, join, {0, 1}, {0, 1, 2}, [(0, 1), (2,)], [(0, 1)])
    assert repr(handle.state_dict()) == repr(clipper.state_dict())
    assert handle.result.names == ("group0.0", "group0.1", "group1.0")


@pytest.mark.parametrize("recipe", [r for r in RECIPES if not r.startswith("group_norm")])
def test_a_parameter_that_is_exchanged(recipe):
    def exchange(optimizer, parameters):
        optimizer.param_groups[0]["params"][1] = parameters[2]

    _, handle = run_both(recipe, exchange, {0, 1}, {0, 2}, [(0, 1, 2)], [(0, 1)])
    assert len(handle.clipper.parameters) == 2


def test_a_parameter_that_moves_to_another_group():
    def move(optimizer, parameters):
        first, second = optimizer.param_groups
        second["params"].insert(0, first["params"].pop())

    known, moved = three(), three()
    optimizer = sgd(moved[:2], moved[2:])
    handle = gradclip.attach(optimizer, "group_norm:0.5")
    give_gradients(moved, 2, {0, 1, 2})
    optimizer.step()
    move(optimizer, moved)
    give_gradients(moved, 2, {0, 1, 2})
    give_gradients(known, 2, {0, 1, 2})
    for group in (known[:1], known[1:]):
        gradclip.clip_(group, "global_norm:0.5")
    optimizer.step()
    for a, b in zip(known, moved, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)
    assert handle.result.names == ("group0.0", "group1.0", "group1.1")


def test_the_update_after_unfreezing_has_the_length_that_was_asked_for():
    torch.manual_seed(0)
    body, head = nn.Linear(4, 4, bias=False), nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    gradclip.attach(optimizer, "global_norm:1.0")
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": body.parameters()})
        before = [p.detach().clone() for p in (head.weight, body.weight)]
        optimizer.zero_grad()
        body.zero_grad()
        (1000 * head(body(torch.ones(8, 4)))).sum().backward()
        optimizer.step()
        moved = torch.cat([(p.detach() - b).flatten() for p, b in zip((head.weight, body.weight), before, strict=True)])
        assert float(moved.norm()) == pytest.approx(1.0, rel=1e-5)


class TestNames:
    """``parameters=`` names what is clipped: all of it, or a part."""

    def test_where_all_were_named_all_stay_clipped(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        model[0].requires_grad_(False)
        optimizer = torch.optim.SGD(model[1].parameters(), lr=0.1)
        handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=model)
        other = nn.Parameter(torch.ones(2))
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": [*model[0].parameters(), other]})
        (100 * model(torch.ones(2, 3)).sum() + 50 * other.sum()).backward()
        optimizer.step()
        assert handle.result.names == ("0.weight", "0.bias", "1.weight", "1.bias", "group1.2")
        whole = torch.cat([p.grad.flatten() for p in (*model.parameters(), other)])
        assert float(whole.norm()) == pytest.approx(0.5, rel=1e-6)

    def test_where_a_part_was_named_what_is_new_is_named_once(self):
        first, second, third = (nn.Linear(2, 1, bias=False) for _ in range(3))
        optimizer = sgd(first.parameters(), second.parameters())
        handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=first)
        optimizer.add_param_group({"params": third.parameters()})
        for layer in (first, second, third):
            layer.weight.grad = torch.full((1, 2), 100.0)
        with pytest.warns(RuntimeWarning, match=r"does not clip 'group2\.0', which the optimizer has got since.*detach\(\)"):
            optimizer.step()
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
        optimizer.step()  # said once
        assert handle.result.names == ("weight",)
        assert float(first.weight.grad.norm()) == pytest.approx(0.5)
        assert torch.equal(third.weight.grad, torch.full((1, 2), 100.0))

    def test_the_part_of_a_model_grows_with_the_model(self):
        part, rest = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False)}), nn.Linear(2, 1)
        optimizer = sgd(part.parameters(), rest.parameters())
        handle = gradclip.attach(optimizer, "tensor_norm:0.5", parameters=part)
        part["b"] = nn.Linear(2, 1, bias=False)
        optimizer.add_param_group({"params": part["b"].parameters()})
        part["b"].weight.grad = torch.full((1, 2), 100.0)
        optimizer.step()
        assert handle.result.names == ("a.weight", "b.weight")
        assert float(part["b"].weight.grad.norm()) == pytest.approx(0.5)

    def test_a_parameter_that_the_optimizer_lost_is_clipped_no_more(self):
        parameters = three()
        optimizer = sgd(parameters[:2], parameters[2:])
        handle = gradclip.attach(optimizer, "global_norm:0.5", parameters={"a": parameters[0], "c": parameters[2]})
        del optimizer.param_groups[1]
        give_gradients(parameters, 2, {0, 1, 2})
        kept = parameters[2].grad.clone()
        optimizer.step()
        assert handle.result.names == ("a",)
        assert float(parameters[0].grad.norm()) == pytest.approx(0.5)
        assert torch.equal(parameters[2].grad, kept)


def test_what_does_not_fit_any_more_is_refused_at_every_step_and_changes_nothing():
    parameters = three()
    optimizer = sgd(parameters[:1], parameters[1:2])
    gradclip.attach(optimizer, "group_norm:1|2")
    optimizer.add_param_group({"params": parameters[2:]})
    give_gradients(parameters, 2, {0, 1, 2})
    before = copy.deepcopy([p.grad for p in parameters])
    for _ in range(2):
        with pytest.raises(gradclip.TargetError, match="2 thresholds for 3 groups"):
            optimizer.step()
        assert_same(before, [p.grad for p in parameters])


@pytest.mark.parametrize("recipe", ["adagc", "zclip", "spam", "stable_spam", "auto"])
@pytest.mark.parametrize("steps_after", [0, 2])
def test_a_state_saved_after_the_change_goes_into_a_new_clipper(recipe, steps_after):
    parameters = three()
    optimizer = sgd(parameters[:2])
    handle = gradclip.attach(optimizer, recipe)
    for step in range(3):
        give_gradients(parameters, step, {0, 1})
        optimizer.step()
    optimizer.add_param_group({"params": parameters[2:]})
    for step in range(3, 3 + steps_after):
        give_gradients(parameters, step, {0, 1, 2})
        optimizer.step()
    file = io.BytesIO()
    torch.save(handle.state_dict(), file)
    file.seek(0)
    copies = copy.deepcopy(parameters)
    other = sgd(copies[:2])
    resumed = gradclip.attach(other, recipe)
    other.add_param_group({"params": copies[2:]})  # not stepped since, either
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in range(5, 8):
        for one, stepped in ((parameters, optimizer), (copies, other)):
            give_gradients(one, step, {0, 1, 2})
            stepped.step()
        assert_same(parameters, copies)
    assert repr(resumed.state_dict()) == repr(handle.state_dict())


@pytest.mark.parametrize("recipe", ["global_norm:0.5", "adagc", "quantile:0.5,per_tensor=True", "spam:warmup=2"])
def test_a_clipper_follows_its_model(recipe):
    """A layer that grows, as an embedding that is resized, is exchanged; the other layer keeps its history."""
    known = three()
    clipper = gradclip.Clipper(known, recipe)
    model = nn.ParameterDict(dict(zip("ab", three()[:2], strict=True)))
    following = gradclip.Clipper(model, recipe)
    for step in range(8):
        if step == 4:
            model["b"] = three()[2]
        give_gradients(known, step, {0, 1} if step < 4 else {0, 2})
        grads = [p.grad.clone() for p in known if p.grad is not None]
        for p, grad in zip(model.values(), grads, strict=True):
            p.grad = grad
        clipper.clip_()
        result = following.clip_()
        assert result.names == ("a", "b")
        assert_same([p.grad for p in known if p.grad is not None], [p.grad for p in model.values()])


def test_a_clipper_of_an_optimizer_follows_it():
    parameters = three()
    optimizer = sgd(parameters[:2])
    clipper = gradclip.Clipper(optimizer, "global_norm:0.5")
    optimizer.add_param_group({"params": parameters[2:]})
    give_gradients(parameters, 2, {0, 1, 2})
    clipper.clip_()
    assert float(torch.cat([p.grad.flatten() for p in parameters]).norm()) == pytest.approx(0.5, rel=1e-6)
    assert len(clipper.names) == len(clipper.parameters) == 3


def test_an_optimizer_that_is_loaded_has_the_same_parameters():
    """``load_state_dict`` makes new groups of the same tensors: nothing is laid out anew, nothing forgotten."""
    parameters = three()
    optimizer = sgd(parameters[:2], parameters[2:])
    handle = gradclip.attach(optimizer, "adagc")
    plan = handle.clipper._plan
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    give_gradients(parameters, 0, {0, 1, 2})
    with warnings.catch_warnings(action="error"):
        optimizer.step()
    assert handle.clipper._plan is plan


def test_a_layer_whose_units_lie_along_another_axis_keeps_them():
    """Also in a copy, which has no model to ask."""
    layer = nn.ConvTranspose1d(3, 2, 4, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    gradclip.attach(optimizer, "agc:0.01", parameters=layer)
    for one, stepped in ((layer, optimizer), copy.deepcopy((layer, optimizer))):
        stepped.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
        one.weight.grad = torch.randn(3, 2, 4)
        want = gradclip.clip(one, "agc:0.01")["weight"]
        stepped.step()
        assert torch.equal(one.weight.grad, want)


def test_it_is_laid_out_anew_once():
    parameters = three()
    optimizer = sgd(parameters[:2])
    handle = gradclip.attach(optimizer, "adagc")
    optimizer.add_param_group({"params": parameters[2:]})
    plans = []
    for step in range(3):
        give_gradients(parameters, step, {0, 1, 2})
        optimizer.step()
        plans.append(handle.clipper._plan)
    assert plans[0] is plans[1] is plans[2]
