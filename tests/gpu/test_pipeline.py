"""Whole steps on the device against the reference: recipes, policies, the drop-in functions."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import gradclip
import gradclip.torch as drop_in
from gradclip.backends import choose, gpu
from gradclip.torch.plan import Stage
from gradclip.torch.step import StepInputs
from gradclip.torch.targets import resolve
from tests.gpu.support import need_kernels
from tests.support import TOLERANCE, assert_matches, expected, parameters

need_kernels()

inf, nan = math.inf, math.nan
RECIPES = ["global_norm:1.0", "global_norm:1000", "global_norm:1,norm=1", "global_norm:0.5,norm=inf", "tensor_norm:0.7",
           "agc:0.01", "agc:0.3,axis=-1", "agc:0.02,exclude=conv.*", "value:0.3", "value:-0.1,0.5", "value:100",
           "block_rms:0.5", "group_norm:1|0.3,patterns=encoder.*|*", "normalize:2,soft=true"]  # fmt: skip


def moved(target, device):
    """Copies of parameters and gradients on a device."""
    made = {}
    for name, p in target.items():
        made[name] = nn.Parameter(p.detach().to(device, copy=True))
        made[name].grad = None if p.grad is None else p.grad.to(device, copy=True)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_do_what_the_reference_says(device, recipe, dtype):
    target = parameters(dtype)
    want, own = expected(gradclip.parse(recipe), target), moved(target, device)
    result = gradclip.clip_(own, recipe)
    assert_matches(moved(own, "cpu"), want)
    assert float(result.norm) == pytest.approx(want.norm, rel=1e-6)
    assert float(result.clipped_norm) == pytest.approx(want.clipped_norm, rel=TOLERANCE[dtype])
    assert bool(result.clipped) == any(f != 1 for f in want.factors)


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_has_to_be_asked(device, recipe):
    """The way of a policy that does not look: every factor stays on the device."""
    target = parameters()
    want, own = expected(gradclip.parse(recipe), target), moved(target, device)
    stage = Stage(gradclip.parse(recipe), resolve(own))
    backend = choose([p.grad for p in own.values()], stage.layout.units)
    transposed = recipe == "agc:0.3,axis=-1"  # its units are no runs of elements
    assert isinstance(backend, gpu.Gpu) or transposed
    step = StepInputs([p.detach() for p in own.values()])
    clipped = stage.strategy.act(backend, stage.strategy.decide(backend, step), None, step).clipped
    assert_matches(moved(own, "cpu"), want)
    if not recipe.startswith("agc"):  # units: whether any changed is not looked at
        assert bool(clipped) == any(f != 1 for f in want.factors)


@pytest.mark.parametrize("bad", [nan, inf])
@pytest.mark.parametrize("policy", ["skip", "raise", "zero", "propagate"])
def test_policies_see_one_bad_element(device, policy, bad):
    own = moved(parameters(), device)
    own["conv.weight"].grad.view(-1)[3] = bad
    clipping = gradclip.global_norm(1.0, nonfinite=policy)
    if policy == "raise":
        with pytest.raises(gradclip.NonFiniteGradientError, match=r"conv\.weight"):
            gradclip.clip_(own, clipping)
        return
    if policy == "skip":
        with pytest.warns(RuntimeWarning, match=r"conv\.weight"):
            assert gradclip.clip_(own, clipping).skipped
        assert all(p.grad is None for p in own.values())
        return
    result = gradclip.clip_(own, clipping)
    total = math.sqrt(sum(float(p.grad.double().square().sum()) for p in own.values() if p.grad is not None))
    assert not result.finite
    assert total == pytest.approx(1.0, rel=1e-6) if policy == "zero" else math.isnan(total)


def test_gradients_of_all_kinds_share_one_norm(device):
    """Those that the kernels take and those that they leave, in one list."""
    made = {"float": torch.randn(50), "double": torch.randn(7, dtype=torch.float64), "half": torch.randn(9).half(),
            "sliced": torch.randn(4, 5), "expanded": torch.randn(6),
            "complex": torch.randn(3, dtype=torch.complex64)}  # fmt: skip
    target = {name: nn.Parameter(tensor) for name, tensor in made.items()}
    for p in target.values():
        p.grad = torch.randn_like(p)
    target["sliced"].grad = torch.randn(4, 9)[:, ::2]
    target["expanded"].grad = torch.randn(()).expand(6)
    for recipe in ("global_norm:1.0", "tensor_norm:0.7", "agc:0.01", "value:0.3"):
        own = {}
        for name, p in target.items():
            own[name] = nn.Parameter(p.detach().to(device))
            grad = torch.empty_strided(p.grad.shape, p.grad.stride(), dtype=p.grad.dtype, device=device)
            own[name].grad = p.grad.to(device).expand(6) if name == "expanded" else grad.copy_(p.grad)
        want = expected(gradclip.parse(recipe), target)
        gradclip.clip_(own, recipe)
        assert_matches(moved(own, "cpu"), want, least=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("p", [1, 2, 3, inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e4])
def test_the_drop_in_is_torchs_in_float64(device, dtype, p, max_norm):
    target = parameters(dtype)
    del target["none"]  # PyTorch refuses the largest element of nothing
    exact = [nn.Parameter(q.detach().double()) for q in target.values()]
    for q, own in zip(exact, target.values(), strict=True):
        q.grad = None if own.grad is None else own.grad.double().clone()
    want = utils.clip_grad_norm_(exact, max_norm, p)
    own = list(moved(target, device).values())
    found = drop_in.clip_grad_norm_(own, max_norm, p)
    assert (found.device, found.shape) == (device, ())
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert float(found) == pytest.approx(float(want), rel=1e-6)
    for q, w in zip(own, exact, strict=True):
        if q.grad is not None:
            torch.testing.assert_close(q.grad.double().cpu(), w.grad, rtol=TOLERANCE[dtype], atol=1e-30)


@pytest.mark.parametrize("bad", [nan, inf])
def test_the_drop_in_propagates_or_raises(device, bad):
    for error in (False, True):
        theirs, ours = (moved(parameters(), device) for _ in range(2))
        for name, p in theirs.items():
            ours[name].grad = None if p.grad is None else p.grad.clone()
            if name == "conv.weight":
                p.grad.view(-1)[0] = ours[name].grad.view(-1)[0] = bad
        if error:
            before = ours["gain"].grad.clone()
            with pytest.raises(RuntimeError, match="non-finite"):
                drop_in.clip_grad_norm_(ours.values(), 1.0, error_if_nonfinite=True)
            assert torch.equal(ours["gain"].grad, before)
            continue
        utils.clip_grad_norm_(theirs.values(), 1.0)
        drop_in.clip_grad_norm_(ours.values(), 1.0)
        for name, p in theirs.items():
            if p.grad is not None:
                np.testing.assert_array_equal(ours[name].grad.cpu(), p.grad.cpu())


def test_the_other_drop_in_functions(device):
    target = moved(parameters(), device)
    values = list(target.values())
    grads = [p.grad for p in values if p.grad is not None]
    total = torch.cat([g.double().flatten() for g in grads]).norm()
    found = drop_in.get_total_norm(grads)
    assert float(found) == pytest.approx(float(total), rel=1e-6)
    want = [g * (0.5 / (total + 1e-6)).float() for g in grads]
    copies = [c for c in drop_in.clip_grad_norm(values, 0.5) if c is not None]
    drop_in.clip_grads_with_norm_(values, 0.5, found)
    for grad, copy, w in zip(grads, copies, want, strict=True):
        torch.testing.assert_close(grad, w, rtol=3e-7, atol=0)
        torch.testing.assert_close(copy, w, rtol=3e-7, atol=0)
    drop_in.clip_grad_value_(values, 0.05)
    assert max(float(g.abs().max()) for g in grads if g.numel()) == pytest.approx(0.05)


def test_where_triton_cannot_compile_pytorch_does_it(device, monkeypatch):
    def broken(what):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(gpu, "_kernels", broken)
    gpu._works.cache_clear()
    try:
        target = parameters()
        want, own = expected(gradclip.global_norm(1.0), target), moved(target, device)
        with pytest.warns(RuntimeWarning, match="no compiler"):
            gradclip.clip_(own, gradclip.global_norm(1.0))
        assert_matches(moved(own, "cpu"), want)
        gradclip.clip_(own, gradclip.global_norm(1.0))  # it says so once
    finally:
        gpu._works.cache_clear()


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_variable_switches_it_off(switch):
    code = "import torch; from gradclip.backends import gpu; print(gpu.on_device(torch.ones(1)))"
    environment = dict(os.environ, GRADCLIP_KERNEL=switch, TRITON_INTERPRET="1")
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False" if switch == "0" else "True"]
