"""Fused optimizers multiply by the coefficient themselves: the same weights to rounding, and nothing left behind."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

import gradclip
from gradclip.backends.cpu import Cpu
from gradclip.backends.stock import Stock
from gradclip.torch.current_parameters import CurrentParameters
from gradclip.torch.fused import FusedScale
from gradclip.torch.targets import resolve

OPTIMIZERS = {
    "adamw": partial(torch.optim.AdamW, lr=1e-2, fused=True),
    "adam, amsgrad": partial(torch.optim.Adam, lr=1e-2, amsgrad=True, weight_decay=0.1, fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.1, fused=True),
    "sgd, momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1, fused=True),
}


@pytest.fixture
def passes(monkeypatch):
    """Count the passes that multiply gradients outside the optimizer."""
    seen = []
    for backend in (Cpu, Stock):
        original = backend.scale
        monkeypatch.setattr(backend, "scale", lambda *args, own=original: (seen.append(args), own(*args)))
    return seen


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def gradients(net, step):
    """Spiky, the same for every arm."""
    generator = torch.Generator().manual_seed(step)
    for p in net.parameters():
        p.grad = (torch.randn(p.shape, generator=generator) * (100.0 if step % 3 == 0 else 0.3)).to(p.dtype)


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("recipe", ["global_norm:1.0", "normalize:0.7", "zclip", "auto", "global_norm:2,norm=1"])
def test_the_weights_are_those_of_a_pass_before_the_step(build, recipe, passes):
    riding, plain = model(), model()
    optimizers = build(riding.parameters()), build(plain.parameters())
    handle = gradclip.attach(optimizers[0], recipe)
    clipper = gradclip.Clipper(optimizers[1], recipe)
    for step in range(12):
        for net in (riding, plain):
            gradients(net, step)
        optimizers[0].step()
        assert not passes
        clipper.clip_()
        passes.clear()
        optimizers[1].step()
        assert float(handle.result.clipped_norm) == pytest.approx(float(handle.result.norm * handle.result.coefficient))
        for a, b in zip(riding.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=0)  # written back by the optimizer
    assert not hasattr(optimizers[0], "grad_scale")


def test_half_precision_rides_and_float64_does_not(passes):
    for dtype, expected in ((torch.bfloat16, 0), (torch.float64, 1)):
        net = model(dtype)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
        gradclip.attach(optimizer, "global_norm:1.0")
        gradients(net, 0)
        optimizer.step()
        assert len(passes) == expected


@pytest.mark.parametrize("recipe", ["global_norm:1.0,exclude=0.*", "tensor_norm:1.0", "skip_step"])
def test_what_has_more_than_one_factor_takes_a_pass(recipe):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    clipping = gradclip.Clipping.parse(recipe)
    handle = gradclip.attach(optimizer, clipping, parameters=net)
    gradients(net, 0)
    want = (
        gradclip.clip(net, clipping)
        if not clipping.threshold.stateful
        else {n: p.grad.clone() for n, p in net.named_parameters()}
    )
    optimizer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, want[name])
    assert handle.result is not None


def test_a_part_of_the_parameters_takes_a_pass(passes):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    gradclip.attach(optimizer, "global_norm:1.0", parameters=net[0])
    gradients(net, 0)
    before = net[2].weight.grad.clone()
    optimizer.step()
    assert len(passes) == 1
    assert torch.equal(net[2].weight.grad, before)


def test_a_param_group_that_joins_later_is_carried_too(passes):
    net, late = model(), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    handle = gradclip.attach(optimizer, "global_norm:1.0")
    optimizer.add_param_group({"params": [late]})
    gradients(net, 0)
    late.grad = torch.ones(3)
    everything = torch.cat([p.grad.flatten() for p in [*net.parameters(), late]])
    optimizer.step()
    assert not passes
    assert float(handle.result.norm) == pytest.approx(float(everything.norm()))
    torch.testing.assert_close(late.grad, torch.ones(3) / everything.norm())  # written back by the optimizer


def test_a_param_group_beside_a_part_takes_a_pass(passes):
    net, late = model(), nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    gradclip.attach(optimizer, "global_norm:1.0", parameters=net[0])
    optimizer.add_param_group({"params": [late]})
    gradients(net, 0)
    late.grad = torch.ones(3)
    with pytest.warns(RuntimeWarning, match=r"does not clip 'group1\.0', which the optimizer has got since"):
        optimizer.step()
    assert len(passes) == 1
    assert torch.equal(late.grad, torch.ones(3))  # a part was named, and it is not in it


def test_a_hook_behind_it_sees_clipped_gradients(passes):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    gradclip.attach(optimizer, "global_norm:1.0")
    seen = []
    optimizer.register_step_pre_hook(
        lambda *step: seen.append(gradclip.torch.get_total_norm([p.grad for p in net.parameters()]))
    )
    gradients(net, 0)
    optimizer.step()
    assert float(seen[0]) == pytest.approx(1.0, rel=1e-6)
    assert len(passes) == 1


def test_a_step_that_fails_leaves_nothing_behind():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    handle = gradclip.attach(optimizer, "global_norm:1.0")
    gradients(net, 0)
    optimizer.param_groups[0]["betas"] = None  # fails inside step()
    with pytest.raises(TypeError):
        optimizer.step()
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    gradients(net, 1)
    want = {n: p.grad.clone() for n, p in net.named_parameters()}
    handle.clipper.clip_ = lambda carry: None  # without clipping the gradients must come through as they are
    optimizer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad, want[name], rtol=0, atol=0)


@pytest.mark.parametrize("given", [True, False], ids=["scaler given", "scaler not given"])
@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_composes_with_a_scaler(build, given, passes):
    riding, plain = model(), model()
    optimizers = build(riding.parameters()), build(plain.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    handle = gradclip.attach(optimizers[0], "global_norm:1.0", scaler=scaler if given else None)
    clipper = gradclip.Clipper(optimizers[1], "global_norm:1.0")
    x = 100 * torch.randn(4, 8)
    for _ in range(4):
        optimizers[0].zero_grad()
        scaler.scale(riding(x).square().sum()).backward()
        scaler.step(optimizers[0])
        scaler.update()
        assert not passes
        optimizers[1].zero_grad()
        plain(x).square().sum().backward()
        result = clipper.clip_()
        passes.clear()
        optimizers[1].step()
        assert float(handle.result.norm) == pytest.approx(float(result.norm), rel=1e-3)
        for a, b in zip(riding.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_first_step_that_is_skipped_leaves_momentum_sound():
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True)
    gradclip.attach(optimizer, "global_norm:1.0")
    gradients(net, 0)
    net[0].weight.grad[0, 0] = float("nan")
    with pytest.warns(RuntimeWarning, match="skipped a step"):
        optimizer.step()
    gradients(net, 0)
    optimizer.step()
    for p in net.parameters():
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], p.grad)


@pytest.mark.parametrize("factor", [0.0, 1e-38, 1e38])
def test_a_factor_that_float32_cannot_divide_by_takes_a_pass(factor):
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, fused=True)
    hook = optimizer.register_step_pre_hook(lambda *step: None)
    scale = FusedScale(optimizer, hook.id, CurrentParameters(optimizer, resolve(optimizer)))
    assert not scale(factor)
    assert not hasattr(optimizer, "grad_scale")
    assert scale(0.5)
    assert float(optimizer.grad_scale) == 2.0
    scale.clear()
    assert not hasattr(optimizer, "grad_scale")
