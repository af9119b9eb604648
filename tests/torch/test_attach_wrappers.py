"""Optimizers around optimizers, and steps that no hook sees: clipped once at the innermost, refused, or said."""

from __future__ import annotations

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

import gradclip
from gradclip.torch.attachment import attachment_of

X = torch.ones(8, 4)


def linear():
    torch.manual_seed(0)
    return nn.Linear(4, 1, bias=False)


def sgd(model, lr=1.0, **settings):
    return torch.optim.SGD(model.parameters(), lr=lr, **settings)


def backward(model, factor=1000.0):
    (factor * model(X)).sum().backward()


class NoInit(torch.optim.Optimizer):
    """A wrapper that is an optimizer by name only, as accelerate's."""

    def __init__(self, inner):
        self.optimizer = inner

    @property
    def param_groups(self):
        return self.optimizer.param_groups

    @property
    def state(self):
        return self.optimizer.state

    def step(self, closure=None):
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


class EmptyHooks(NoInit):
    """With dicts of hooks that nobody calls."""

    def __init__(self, inner):
        super().__init__(inner)
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()


class SharedHooks(EmptyHooks):
    """A copy of the inner one's attributes, as Lightning's."""

    def __init__(self, inner):
        vars(self).update(optimizer=inner, **{k: v for k, v in vars(inner).items() if k not in ("param_groups", "state")})


class Hooked(torch.optim.Optimizer):
    """A wrapper with hooks of its own; every step is two of the inner one's."""

    def __init__(self, inner, often=1):
        super().__init__(inner.param_groups, {})
        self.base, self.often = inner, often
        self.param_groups = inner.param_groups

    def step(self, closure=None):
        for _ in range(self.often):
            loss = self.base.step(closure)
        return loss


class SAM(torch.optim.Optimizer):
    """Two half steps, by hand or with a closure."""

    def __init__(self, params, base, rho=0.05, **settings):
        super().__init__(params, dict(rho=rho, **settings))
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self, zero_grad=False):
        norm = torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.clone()
                p.add_(p.grad * group["rho"] / norm)
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure):
        self.first_step(zero_grad=True)
        with torch.enable_grad():
            closure()
        self.second_step()


class SelfContainedSAM(SAM):
    """Has no optimizer inside it."""

    def __init__(self, params, rho=0.05):
        torch.optim.Optimizer.__init__(self, params, dict(rho=rho))

    @torch.no_grad()
    def second_step(self, zero_grad=False):
        for group in self.param_groups:
            for p in group["params"]:
                p.copy_(self.state[p]["old"] - p.grad)
        if zero_grad:
            self.zero_grad()


class Own:
    """No optimizer at all."""

    def __init__(self, params):
        self.params = list(params)

    def step(self):
        pass


WRAPPERS = {
    "no init": NoInit,
    "empty hooks": EmptyHooks,
    "shared hooks": SharedHooks,
    "hooked": Hooked,
    "twice": lambda inner: NoInit(Hooked(inner)),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("closure", [False, True])
def test_a_wrapper_clips_its_inner_steps_once(wrap, closure):
    model = linear()
    inner = sgd(model)
    optimizer = wrap(inner)
    handle = gradclip.attach(optimizer, "global_norm:1.0")
    assert handle.optimizer is inner
    for number in range(3):
        before = model.weight.detach().clone()
        model.zero_grad()
        if closure:
            optimizer.step(lambda: backward(model))
        else:
            backward(model)
            optimizer.step()
        assert float((model.weight - before).detach().norm()) == pytest.approx(1.0, rel=1e-5)
        assert handle.clipper.step == number + 1
    handle.detach()
    model.zero_grad()
    backward(model)
    optimizer.step()
    assert float(model.weight.grad.norm()) == pytest.approx(16000)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_both_is_twice(wrap):
    inner = sgd(linear())
    outer = wrap(inner)
    for first, second in ((outer, inner), (inner, outer), (outer, outer)):
        handle = gradclip.attach(first, "global_norm:1.0")
        assert attachment_of(outer) is attachment_of(inner) is handle
        with pytest.raises(ValueError, match=r"detach\(\).*twice"):
            gradclip.attach(second, "global_norm:1.0")
        handle.detach()
        assert attachment_of(outer) is None


def test_an_optimizer_attached_before_it_is_wrapped_is_clipped_once():
    model = linear()
    inner = sgd(model)
    handle = gradclip.attach(inner, "global_norm:1.0")
    backward(model)
    Hooked(inner).step()
    assert handle.clipper.step == 1
    assert float(model.weight.grad.norm()) == pytest.approx(1.0)


def test_lookahead_as_it_is_published():
    published = pytest.importorskip("pytorch_optimizer")
    ends = []
    for by_hand in (True, False):
        model = linear()
        optimizer = published.Lookahead(sgd(model, lr=0.1, momentum=0.9), k=2, alpha=0.5)
        if not by_hand:
            gradclip.attach(optimizer, "global_norm:1.0")
        for step in range(5):
            optimizer.zero_grad()
            backward(model, 10.0**step)
            if by_hand:
                gradclip.clip_(model, "global_norm:1.0")
            optimizer.step()
        ends.append(model.weight.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("way", ["half steps", "closure", "published"])
@pytest.mark.parametrize("attach_to", ["outer", "inner"])
def test_sam_clips_the_gradient_that_steps(way, attach_to):
    make = pytest.importorskip("pytorch_optimizer").SAM if way == "published" else SAM
    ends = []
    for by_hand in (True, False):
        model = linear()
        optimizer = make(model.parameters(), torch.optim.SGD, lr=1.0)
        if not by_hand:
            handle = gradclip.attach(optimizer if attach_to == "outer" else optimizer.base_optimizer, "normalize:0.5")

        def closure(model=model):
            loss = (model(X * torch.arange(8.0)[:, None]) - 1).square().sum()
            loss.backward()
            return loss

        def clipped(closure=closure, model=model):
            loss = closure()
            gradclip.clip_(model, "normalize:0.5")
            return loss

        for _ in range(4):
            optimizer.zero_grad()
            closure()
            if way == "half steps":
                optimizer.first_step(zero_grad=True)
                (clipped if by_hand else closure)()
                optimizer.second_step()
            else:
                optimizer.step(clipped if by_hand else closure)
        ends.append(model.weight.detach())
    assert handle.clipper.step == 4
    assert torch.equal(*ends)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("wrap", [NoInit, Hooked])
@pytest.mark.parametrize("unscale_first", [False, True])
def test_scaled_gradients_of_a_wrapper_are_unscaled_once(wrap, unscale_first, fused):
    model = linear()
    optimizer = wrap(sgd(model, fused=fused))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    handle = gradclip.attach(optimizer, "global_norm:1.0", scaler=scaler)
    for _ in range(3):
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((1000 * model(X)).sum()).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert float(handle.result.norm) == pytest.approx(16000)
        assert float((model.weight - before).detach().norm()) == pytest.approx(1.0, rel=1e-5)


class TestRefused:
    @pytest.mark.parametrize("wrapper", [NoInit, EmptyHooks])
    def test_nobody_would_call_the_hook(self, wrapper):
        optimizer = wrapper(sgd(linear()))
        hidden = vars(optimizer).pop("optimizer")
        type(optimizer).optimizer = hidden  # where no attribute of its own leads to it
        try:
            with pytest.raises(
                TypeError, match=rf"{wrapper.__name__}\.step\(\) calls no hooks.*Attach to the optimizer that it"
            ):
                gradclip.attach(optimizer, "global_norm:1.0")
        finally:
            del type(optimizer).optimizer

    def test_no_optimizer(self):
        model = linear()
        with pytest.raises(TypeError, match=r"not Own; call clip_\(\) of a gradclip\.Clipper\(parameters, \.\.\.\) before its"):
            gradclip.attach(Own(model.parameters()), "global_norm:1.0")
        schedule = torch.optim.lr_scheduler.ConstantLR(sgd(model))
        with pytest.raises(TypeError, match=r"not ConstantLR; attach to the optimizer inside it, its \.optimizer"):
            gradclip.attach(schedule, "global_norm:1.0")
        with pytest.raises(TypeError, match="not int; for a model"):
            gradclip.attach(5, "global_norm:1.0")


class TestUnseenSteps:
    """``step()`` never runs: what steps the weights instead is said as soon as the next gradient appears."""

    def test_half_steps_without_an_inner_optimizer(self):
        model = linear()
        optimizer = SelfContainedSAM(model.parameters())
        handle = gradclip.attach(optimizer, "global_norm:1.0")
        backward(model)
        optimizer.first_step(zero_grad=True)
        with pytest.warns(RuntimeWarning, match=r"attached to SelfContainedSAM.* not by its step\(\).*clip_\(\) of a gradclip"):
            backward(model)
        optimizer.second_step(zero_grad=True)
        backward(model)  # said once
        assert handle.result is None
        assert not model.weight._post_accumulate_grad_hooks

    @pytest.mark.parametrize("rule", ["sgd", "adam", "decay"])
    @pytest.mark.parametrize("in_place", ["no_grad", "data"])
    def test_an_update_by_hand(self, rule, in_place):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3))
        optimizer = sgd(model)  # kept: one that is freed says nothing
        gradclip.attach(optimizer, "global_norm:1.0")
        model(torch.randn(8, 4)).square().sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                update = p.grad.sign() if rule == "adam" else p.grad + (0.01 * p if rule == "decay" else 0)
                (p.data if in_place == "data" else p).sub_(0.01 * update)
        model.zero_grad()
        with pytest.warns(RuntimeWarning, match="attached to SGD, and its weights were stepped"):
            model(torch.randn(8, 4)).square().sum().backward()

    def test_accumulated_gradients_and_what_else_changes_weights_say_nothing(self):
        """A checkpoint, new weights, rows that an embedding renormalises, an average: no step."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(10, 8, max_norm=0.5), nn.Flatten(), nn.Linear(16, 16))
        average = {k: v + 0.1 * torch.randn_like(v) for k, v in model.state_dict().items()}
        optimizer = sgd(model, lr=0.1)
        gradclip.attach(optimizer, "global_norm:1.0")
        changes = [
            lambda: None,
            lambda: model.load_state_dict(average),
            model[2].reset_parameters,
            lambda: nn.init.normal_(model[2].weight),
            lambda: [p.data.lerp_(average[k], 0.5) for k, p in model.named_parameters()],
        ]
        with warnings.catch_warnings(action="error"):
            for change in changes:
                for _ in range(2):
                    model(torch.randint(10, (8, 2))).square().sum().backward()
                change()
                model.zero_grad()
            for _ in range(3):
                model(torch.randint(10, (8, 2))).square().sum().backward()
                optimizer.step()

    def test_from_the_first_step_on_nothing_is_looked_at(self):
        model = linear()
        optimizer = sgd(model)
        gradclip.attach(optimizer, "global_norm:1.0")
        assert len(model.weight._post_accumulate_grad_hooks) == 1
        backward(model)
        optimizer.step()
        assert not model.weight._post_accumulate_grad_hooks
        with torch.no_grad():
            model.weight.sub_(model.weight.grad)
        backward(model)

    def test_another_optimizer_that_clips_the_same_parameters_is_no_unseen_step(self):
        """The cell of a notebook that is run again; a warm-up with another optimizer."""
        model = linear()
        unused, used = sgd(model), sgd(model)
        gradclip.attach(unused, "global_norm:1.0")
        gradclip.attach(used, "global_norm:1.0")
        for _ in range(3):
            used.zero_grad()
            backward(model)
            used.step()

    def test_detached_it_looks_no_more(self):
        model = linear()
        gradclip.attach(sgd(model), "global_norm:1.0").detach()
        assert not model.weight._post_accumulate_grad_hooks


def test_an_attached_optimizer_can_be_freed():
    import gc
    import weakref

    optimizer = sgd(linear())
    gone = weakref.ref(gradclip.attach(optimizer, "global_norm:1.0"))
    del optimizer
    gc.collect()
    assert gone() is None
