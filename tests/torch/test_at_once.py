"""Clipping each block as soon as it is measured: the bits of measuring first, and never where that could be too late."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradclip
from gradclip.backends import cpu
from gradclip.torch import pipeline
from gradclip.torch.clamping import ClampElements
from gradclip.torch.scaling import ScaleTensors

pytestmark = pytest.mark.skipif(not cpu.enabled(), reason="the kernel was not built, or is switched off")

RECIPES = ["tensor_norm:1.0", "tensor_norm:1.0,norm=1", "tensor_norm:0.1,norm=inf", "block_rms:0.05", "agc:0.05", "value:0.02",
           "trust:0.01,per_tensor=true", "tensor_norm:linear(3,0.5,10)"]  # fmt: skip
BIG = 300_000
"""More elements than a piece of the kernel has."""


def made(dtype=torch.float32, transposed=True):
    """Tensors of many sizes, an empty one, a transposed one, one that has no gradient, and some of several pieces."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(BIG,), (3, 5), (7,), (), (0,), (40, 30), (500, 1000), (2, 3, 4), (510, 1000)]
    parameters = {}
    for i, shape in enumerate(shapes):
        p = parameters[f"p{i}"] = nn.Parameter((0.1 * torch.randn(shape, generator=generator)).to(dtype))
        p.grad = (10.0 ** (i % 3 - 2) * torch.randn(shape, generator=generator)).to(dtype)
    if transposed:  # its rows are no runs of memory
        parameters["p5"].grad = parameters["p5"].grad.T.contiguous().T
    parameters["none"] = nn.Parameter(torch.ones(4, dtype=dtype))
    return parameters


def clipper(parameters, recipe):
    optimizer = torch.optim.SGD([{"params": [p], "lr": 0.1 * (i + 1)} for i, p in enumerate(parameters.values())])
    return gradclip.Clipper(parameters, recipe, optimizer=optimizer)


@pytest.fixture
def calls(monkeypatch):
    """How often a step was clipped at once."""
    steps, found = [], []

    def watched_stage(*args, own=pipeline.run_stage):
        found.clear()
        try:
            return own(*args)
        finally:
            steps.append(any(one is not None for one in found))

    monkeypatch.setattr(pipeline, "run_stage", watched_stage)
    for strategy in (ClampElements, ScaleTensors):

        def watched(*args, own=strategy.at_once):
            found.append(own(*args))
            return found[-1]

        monkeypatch.setattr(strategy, "at_once", watched)
    return steps


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_it_is_the_same_as_measuring_first(recipe, dtype, threads, calls, monkeypatch):
    monkeypatch.setattr(cpu, "_ALONE", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one, two = (made(dtype, transposed=recipe != "agc:0.05") for _ in range(2))
        methods = [
            gradclip.Clipping.parse(recipe),
            gradclip.Clipping.parse(recipe + ",nonfinite=raise"),
        ]  # which measures first
        for step in range(3):
            results = []
            for parameters, method in zip((one, two), methods, strict=True):
                clip = clipper(parameters, method)
                clip.step = step
                results.append(clip.clip_())
            assert calls[-2:] == [True, False]
            for name in one:
                a, b = one[name].grad, two[name].grad
                assert (a is None) == (b is None)
                if a is not None:  # to the bit; PyTorch divides a number by float64 in two roundings
                    torch.testing.assert_close(a, b, rtol=1e-15 if dtype == torch.float64 else 0, atol=0)
            fast, slow = results
            assert bool(fast.clipped) == bool(slow.clipped)
            for field in ("norm", "clipped_norm", "tensor_norms", "clipped_tensor_norms", "factors"):
                torch.testing.assert_close(getattr(fast, field), getattr(slow, field), rtol=1e-15, atol=0)
            for parameters in (one, two):  # grow again, some of them
                for i, p in enumerate(parameters.values()):
                    if p.grad is not None and i % 2:
                        p.grad.mul_(3)
    finally:
        torch.set_num_threads(before)


def test_nothing_above_its_limit_is_left_untouched(calls):
    parameters = made()
    versions = {name: p.grad._version for name, p in parameters.items() if p.grad is not None}
    want = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    result = clipper(parameters, "tensor_norm:1e9").clip_()
    assert calls == [True]
    assert not bool(result.clipped)
    for name, version in versions.items():
        assert parameters[name].grad._version == version
        assert torch.equal(parameters[name].grad, want[name])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_element_drops_every_gradient(recipe, bad, calls):
    parameters = made(transposed=recipe != "agc:0.05")
    parameters["p6"].grad[10, 10] = bad
    with pytest.warns(RuntimeWarning, match="skipped a step: non-finite gradient in 'p6'"):
        result = clipper(parameters, recipe).clip_()
    assert calls == [True]
    assert result.skipped
    assert result.nonfinite_names == ("p6",)
    assert all(p.grad is None for p in parameters.values())


@pytest.mark.parametrize("policy", ["raise", "zero", "propagate"])
def test_other_policies_measure_first(policy, calls):
    parameters = made()
    parameters["p6"].grad[10, 10] = math.nan
    want = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
    if policy == "raise":
        with pytest.raises(gradclip.NonFiniteGradientError):
            clipper(parameters, f"tensor_norm:1.0,nonfinite={policy}").clip_()
        for name, grad in want.items():
            torch.testing.assert_close(parameters[name].grad, grad, rtol=0, atol=0, equal_nan=True)
    else:
        clipper(parameters, f"tensor_norm:1.0,nonfinite={policy}").clip_()
    assert calls == [False]


@pytest.mark.parametrize(
    "recipe", ["normalize:1.0", "adagc", "tensor_norm:1,norm=3", "tensor_norm:1,exclude=p1", "global_norm:1"]
)
def test_what_is_not_known_beforehand_measures_first(recipe, calls):
    parameters = made()
    clipper(parameters, recipe).clip_()
    assert calls == [False]


def test_one_large_tensor_is_shared_by_all_threads(calls):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        parameters = {"large": nn.Parameter(torch.zeros(BIG)), "small": nn.Parameter(torch.zeros(5))}
        for p in parameters.values():
            p.grad = torch.ones_like(p)
        clipper(parameters, "tensor_norm:1.0").clip_()
        assert calls == [False]
    finally:
        torch.set_num_threads(before)
