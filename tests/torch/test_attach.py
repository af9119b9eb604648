"""attach: clipping inside the step, whatever the loop around it looks like."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradclip

X = torch.linspace(-1, 1, 24).reshape(8, 3)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=0.1, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
}


def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def loss_of(net, factor=100.0):
    return factor * (net(X) - 1).square().mean()


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def assert_same(first, second, rtol=1e-6):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=1e-8)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equals_clipping_by_hand(make):
    by_hand, attached = model(), model()
    first, second = make(by_hand.parameters()), make(attached.parameters())
    handle = gradclip.attach(second, gradclip.global_norm(0.5))
    for _ in range(5):
        first.zero_grad()
        loss_of(by_hand).backward()
        norm = torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        first.step()
        second.zero_grad()
        loss_of(attached).backward()
        second.step()
        assert float(handle.result.norm) == pytest.approx(float(norm), rel=1e-5)
    assert_same(weights(by_hand), weights(attached), rtol=1e-4)  # torch's own clipping has an eps of 1e-6


def test_accumulated_gradients_are_clipped_once():
    net, together = model(), model()
    for one, parts in ((net, 4), (together, 1)):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        handle = gradclip.attach(optimizer, "global_norm:0.5")
        for _ in range(parts):
            (loss_of(one) / parts).backward()
        optimizer.step()
        assert handle.clipper.step == 1
    assert_same(weights(net), weights(together))


def test_closures_are_clipped_where_their_gradients_appear():
    """LBFGS calls its closure several times a step; each call's gradients are clipped, as by hand inside the closure."""
    ends = []
    for by_hand in (True, False):
        net = model()
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.01, max_iter=5)
        handle = None if by_hand else gradclip.attach(optimizer, "global_norm:0.5")
        calls = []

        def closure(net=net, optimizer=optimizer, by_hand=by_hand, calls=calls):
            optimizer.zero_grad()
            loss = loss_of(net)
            loss.backward()
            if by_hand:
                gradclip.clip_(net, "global_norm:0.5")
            calls.append(loss.item())
            return loss

        optimizer.step(closure)
        optimizer.step(closure=closure)
        assert len(calls) > 2
        assert handle is None or handle.clipper.step == len(calls)
        ends.append(weights(net))
    assert_same(*ends)


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_threshold_that_is_never_reached_changes_no_bit_of_lbfgs(search):
    ends = []
    for recipe in (None, "global_norm:1e6"):
        net = model().double()
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, line_search_fn=search)
        handle = None if recipe is None else gradclip.attach(optimizer, recipe)

        def closure(net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (net(X.double()) - 1).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        ends.append(weights(net))
    assert handle.clipper.step > 3  # a step of the clipper is a gradient that it sees, not a call of the optimizer
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_closure_of_sgd_too():
    net, plain = model(), model()
    optimizer, reference = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (net, plain))
    gradclip.attach(optimizer, "global_norm:0.5")

    def closure():
        loss = loss_of(net)
        loss.backward()
        return loss

    loss = optimizer.step(closure)
    loss_of(plain).backward()
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
    reference.step()
    assert loss.item() == pytest.approx(loss_of(model()).item())
    assert_same(weights(net), weights(plain))


def test_two_optimizers_clip_their_own():
    generator, critic = model(), model()
    one, two = torch.optim.SGD(generator.parameters(), lr=0.1), torch.optim.SGD(critic.parameters(), lr=0.1)
    first, second = gradclip.attach(one, "global_norm:0.5"), gradclip.attach(two, "value:0.01")
    (loss_of(generator) + loss_of(critic)).backward()
    one.step()
    assert second.result is None
    two.step()
    assert float(first.result.clipped_norm) == pytest.approx(0.5)
    assert float(second.result.clipped_norm) == pytest.approx(0.01)


def test_detaching_stops_it():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradclip.attach(optimizer, "global_norm:0.5") as handle:
        loss_of(net).backward()
        optimizer.step()
    handle.detach()
    optimizer.step()
    assert handle.clipper.step == 1
    gradclip.attach(optimizer, "global_norm:1.0").detach()


def test_skip_leaves_adams_state_bit_identical():
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    handle = gradclip.attach(optimizer, "global_norm:0.5", parameters=net)
    loss_of(net).backward()
    optimizer.step()
    before, moments = weights(net), [{k: v.clone() for k, v in optimizer.state[p].items()} for p in net.parameters()]
    loss_of(net, math.nan).backward()
    with pytest.warns(RuntimeWarning, match=r"'0\.weight'"):
        optimizer.step()
    assert handle.clipper.skipped == 1
    assert all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))
    for parameter, was in zip(net.parameters(), moments, strict=True):
        assert all(torch.equal(optimizer.state[parameter][key], value) for key, value in was.items())


def test_ten_skips_in_a_row_raise_and_a_good_step_forgives():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    handle = gradclip.attach(optimizer, "global_norm:0.5")

    def step(factor):
        optimizer.zero_grad()
        loss_of(net, factor).backward()
        optimizer.step()

    with pytest.warns(RuntimeWarning) as warned:  # noqa: PT031
        for _ in range(9):
            step(math.nan)
        step(1.0)
        for _ in range(9):
            step(math.inf)
    assert len(warned) == 1
    with pytest.raises(gradclip.NonFiniteGradientError, match="10 steps in a row"):
        step(math.nan)
    assert handle.clipper.skipped == 19


class TestMixedPrecision:
    @pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
    @pytest.mark.parametrize("give_scaler", [True, False])
    @pytest.mark.parametrize("unscale_first", [True, False])
    def test_scaled_gradients_are_unscaled_before_they_are_measured(self, make, give_scaler, unscale_first):
        plain, scaled = model(), model()
        first, second = make(plain.parameters()), make(scaled.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        one, two = (
            gradclip.attach(first, "global_norm:0.5"),
            gradclip.attach(second, "global_norm:0.5", scaler=scaler if give_scaler else None),
        )
        for _ in range(3):
            first.zero_grad()
            loss_of(plain).backward()
            first.step()
            second.zero_grad()
            scaler.scale(loss_of(scaled)).backward()
            if unscale_first:
                scaler.unscale_(second)
            scaler.step(second)
            scaler.update()
            assert float(two.result.norm) == pytest.approx(float(one.result.norm), rel=1e-5)
        assert_same(weights(plain), weights(scaled))

    @pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
    def test_an_overflow_is_the_scalers_to_handle(self, make):
        net = model()
        optimizer = make(net.parameters())
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        handle = gradclip.attach(optimizer, "global_norm:0.5", scaler=scaler)
        before = weights(net)
        scaler.scale(loss_of(net, math.inf)).backward()
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == 512.0
        assert handle.result is None
        assert all(torch.equal(a, b) for a, b in zip(before, weights(net), strict=True))

    def test_a_step_past_the_scaler_is_unscaled_too(self):
        net, plain = model(), model()
        optimizer, other = torch.optim.SGD(net.parameters(), lr=0.1), torch.optim.SGD(plain.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        gradclip.attach(optimizer, "global_norm:0.5", scaler=scaler)
        gradclip.attach(other, "global_norm:0.5")
        scaler.scale(loss_of(net)).backward()
        optimizer.step()
        loss_of(plain).backward()
        other.step()
        assert_same(weights(net), weights(plain))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, dtype):
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
        handle = gradclip.attach(optimizer, "global_norm:0.5", scaler=scaler)
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = loss_of(net, 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        assert float(handle.result.clipped_norm) <= 0.5 * (1 + 1e-6)


class TestBadInput:
    def test_a_model_is_no_optimizer(self):
        with pytest.raises(TypeError, match=r"not Linear; for a model use gradclip\.clip_"):
            gradclip.attach(nn.Linear(1, 1), "global_norm:1")

    def test_twice(self):
        optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
        handle = gradclip.attach(optimizer, "global_norm:1")
        with pytest.raises(ValueError, match=r"detach\(\).*twice"):
            gradclip.attach(optimizer, "global_norm:1")
        handle.detach()

    def test_a_parameter_the_optimizer_does_not_own(self):
        net = model()
        optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
        with pytest.raises(gradclip.TargetError, match=r"does not own '2\.weight', '2\.bias'"):
            gradclip.attach(optimizer, "global_norm:1", parameters=net)
        net[2].requires_grad_(False)
        assert gradclip.attach(optimizer, "global_norm:1", parameters=net).clipper.names == ("0.weight", "0.bias")

    def test_the_wrong_recipe_leaves_the_optimizer_alone(self):
        optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
        for wrong in ("global_nrom:1", "group_norm:1|2"):
            with pytest.raises(ValueError, match=r"global_norm|2 thresholds for 1 groups"):
                gradclip.attach(optimizer, wrong)
        assert not optimizer._optimizer_step_pre_hooks
