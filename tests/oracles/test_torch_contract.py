"""The promises that PyTorch's own tests hold its clipping functions to; both modules keep every one of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import utils

import gradclip.torch
from tests.oracles.support import parameters_of

inf, nan = math.inf, math.nan
FOREACH = [None, True, False]


@pytest.fixture(params=[utils, gradclip.torch], ids=["torch", "gradclip"])
def module(request):
    return request.param


def _linear(weight, bias):
    layer = nn.Linear(10, 10)
    layer.weight.grad = None if weight is None else weight.clone()
    layer.bias.grad = None if bias is None else bias.clone()
    return layer


def _norm(grads, p):
    """The p-norm, written out."""
    elements = torch.cat([g.flatten().abs() for g in grads])
    return float(elements.max()) if p == inf else float((elements**p).sum() ** (1 / p))


def assert_one_factor(layer, before):
    """Assert that all gradients were multiplied by one factor of at most 1, and return it."""
    factors = torch.cat([(p.grad / g).flatten() for p, g in zip(layer.parameters(), before, strict=True)])
    assert float(factors.std()) < 1e-6
    assert float(factors[0]) <= 1
    return float(factors[0])


@pytest.mark.parametrize("foreach", FOREACH)
@pytest.mark.parametrize("p", [0.5, 1.5, 2, 4, "inf"])
def test_large_gradients_come_down_to_the_norm(module, p, foreach):
    grads = torch.arange(1.0, 101).view(10, 10), torch.ones(10).div(1000)
    layer = _linear(*grads)
    total = module.clip_grad_norm_(layer.parameters(), 2.0, norm_type=p, foreach=foreach)
    assert float(total) == pytest.approx(_norm(grads, float(p)), rel=1e-5)
    assert _norm([q.grad for q in layer.parameters()], float(p)) == pytest.approx(2.0, rel=1e-5)
    assert assert_one_factor(layer, grads) == pytest.approx(2.0 / float(total), rel=1e-5)


@pytest.mark.parametrize("foreach", FOREACH)
@pytest.mark.parametrize("p", [0.5, 1.5, 2, 4, "inf"])
def test_small_gradients_stay(module, p, foreach):
    grads = torch.rand(10, 10).div(10000), torch.ones(10).div(500)
    layer = _linear(*grads)
    total = module.clip_grad_norm_(layer.parameters(), 2.0, norm_type=p, foreach=foreach)
    assert float(total) == pytest.approx(_norm(grads, float(p)), rel=1e-5)
    assert assert_one_factor(layer, grads) == 1


def test_a_factor_that_is_not_one_is_noticed():
    layer = _linear(torch.ones(10, 10), torch.ones(10))
    before = [torch.ones(10, 10), torch.full((10,), 2.0)]
    with pytest.raises(AssertionError):
        assert_one_factor(layer, before)
    with pytest.raises(AssertionError):
        assert_one_factor(layer, [torch.full((10, 10), 0.5), torch.full((10,), 0.5)])


@pytest.mark.parametrize("foreach", FOREACH)
@pytest.mark.parametrize("p", [0.5, 1.5, 2, 4, "inf"])
def test_one_parameter_is_as_good_as_a_list(module, p, foreach):
    grad = torch.arange(1.0, 101).view(10, 10)
    alone, listed = parameters_of([grad, grad])
    module.clip_grad_norm_(alone, 2.0, norm_type=p, foreach=foreach)
    module.clip_grad_norm_([listed], 2.0, norm_type=p, foreach=foreach)
    assert torch.equal(alone.grad, listed.grad)
    assert not torch.equal(alone.grad, grad)


@pytest.mark.parametrize("foreach", FOREACH)
@pytest.mark.parametrize("with_bias", [True, False])
def test_values_end_within_the_bound(module, with_bias, foreach):
    weight = torch.arange(-50.0, 50).view(10, 10) / 5
    layer = _linear(weight, torch.full((10,), 2.0) if with_bias else None)
    module.clip_grad_value_(layer.parameters(), 2.5, foreach=foreach)
    assert torch.equal(layer.weight.grad, weight.clamp(-2.5, 2.5))
    assert layer.bias.grad is None or layer.bias.grad.tolist() == [2.0] * 10


@pytest.mark.parametrize("foreach", FOREACH)
def test_values_of_one_parameter(module, foreach):
    grad = torch.arange(-50.0, 50).view(10, 10) / 5
    alone, listed = parameters_of([grad, grad])
    module.clip_grad_value_(alone, 2.5, foreach=foreach)
    module.clip_grad_value_([listed], 2.5, foreach=foreach)
    assert torch.equal(alone.grad, listed.grad)
    assert float(alone.grad.max()) == 2.5


@pytest.mark.parametrize("foreach", FOREACH)
@pytest.mark.parametrize("p", [0.5, 1.5, 2, 4, "inf"])
def test_norm_then_scale_is_clip(module, p, foreach):
    """``get_total_norm`` and ``clip_grads_with_norm_``, one after the other, are ``clip_grad_norm_``."""
    grads = torch.arange(1.0, 101).view(10, 10), torch.ones(10)
    together, apart = _linear(*grads), _linear(*grads)
    want = module.clip_grad_norm_(together.parameters(), 2.0, norm_type=p, foreach=foreach)
    total = module.get_total_norm([q.grad for q in apart.parameters()], norm_type=p, foreach=foreach)
    module.clip_grads_with_norm_(apart.parameters(), 2.0, total, foreach=foreach)
    assert torch.equal(total, want)
    for one, other in zip(apart.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=0)


POSITIVE, NEGATIVE = [0.1, 1, 2, 3.5, inf], [-0.1, -1, -2, -3.5]
# (the gradient's value, in one element only, a finite gradient before it) -> the orders whose norm is not finite.
NONFINITE = {
    (inf, False, False): POSITIVE + NEGATIVE,
    (inf, False, True): POSITIVE,
    (inf, True, False): POSITIVE,
    (inf, True, True): POSITIVE,
    (nan, False, False): POSITIVE + NEGATIVE,
    (nan, False, True): POSITIVE + NEGATIVE,
    (nan, True, False): POSITIVE + NEGATIVE,
    (nan, True, True): POSITIVE + NEGATIVE,
    (2e22, False, False): [],
    (2e200, False, False): [2, 3.5, -2, -3.5],
    (2e200, False, True): [2, 3.5],
    (2e200, True, False): [2, 3.5],
    (2e200, True, True): [2, 3.5],
}


def _cases():
    for (value, one, before), orders in NONFINITE.items():
        for p in [*POSITIVE, *NEGATIVE, 0]:
            yield pytest.param(value, one, before, p, p not in orders, id=f"{value}-{one}-{before}-p={p}")


def _nonfinite_gradients(value, in_one_element, finite_before):
    grad = torch.zeros(10, dtype=torch.float64)
    grad[0 if in_one_element else slice(None)] = value
    if in_one_element:
        grad[1:] = 1.0
    return [torch.ones(3, dtype=torch.float64), grad] if finite_before else [grad]


@pytest.mark.parametrize(("value", "one", "before", "p", "finite"), [*_cases()])
def test_error_if_nonfinite(module, value, one, before, p, finite):
    """In float64 a norm whose powers overflow is not finite; a raise comes before any change."""
    grads = _nonfinite_gradients(value, one, before)
    for foreach in (False, True):
        parameters = parameters_of(grads)
        if finite:
            total = module.clip_grad_norm_(parameters, 1.0, norm_type=p, error_if_nonfinite=True, foreach=foreach)
            assert bool(total.isfinite())
            continue
        with pytest.raises(
            RuntimeError, match=f"The total norm of order {float(p)} for gradients from `parameters` is non-fin"
        ):
            module.clip_grad_norm_(parameters, 1.0, norm_type=p, error_if_nonfinite=True, foreach=foreach)
        assert all(torch.equal(q.grad.nan_to_num(7), g.nan_to_num(7)) for q, g in zip(parameters, grads, strict=True))
        assert not bool(module.clip_grad_norm_(parameters, 1.0, norm_type=p, foreach=foreach).isfinite())


def test_by_default_a_nonfinite_norm_is_no_error(module):
    (parameter,) = parameters_of([[inf, 1.0]])
    assert float(module.clip_grad_norm_(parameter, 1.0)) == inf
    assert parameter.grad.isnan().tolist() == [True, False]
    assert float(parameter.grad[1]) == 0
