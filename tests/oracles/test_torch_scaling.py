"""Clamping to a value, and scaling by a norm from elsewhere, as ``torch.nn.utils`` does; and what either refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import utils

import gradclip.torch as ours
from tests.oracles.support import assert_same_as_torch

inf, nan = math.inf, math.nan


@pytest.mark.parametrize("size", [5, 5000], ids=["small", "large"])
@pytest.mark.parametrize("value", [1.0, 0.25, 0, -1, inf, nan, "1", 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_clips_to_the_value(dtype, value, size):
    grads = [torch.randn(size, dtype=dtype), torch.randn(size, 2, dtype=dtype).t(), torch.randn((), dtype=dtype), None]
    grads[0][:4] = torch.tensor([nan, inf, -inf, -0.0], dtype=dtype)
    for foreach in (None, True, False):
        assert_same_as_torch(grads, lambda m, ps, f=foreach: m.clip_grad_value_(ps, value, foreach=f), rtol=0)


@pytest.mark.parametrize("only", [2.0, -2.0, nan, inf, -inf])
def test_a_single_element_out_of_bounds_in_a_large_tensor(only):
    grad = torch.rand(5000) - 0.5
    grad[4321] = only
    after = assert_same_as_torch([grad], lambda m, ps: m.clip_grad_value_(ps, 1.0), rtol=0)[1][0]
    assert after[4321] == min(max(only, -1.0), 1.0) or math.isnan(only)


@pytest.mark.parametrize("total", [0.0, 0.5, 1.0, 5.0, -5.0, inf, nan])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scales_with_a_norm_from_elsewhere(dtype, total):
    for max_norm in (1.0, 0.0, inf):
        assert_same_as_torch(
            [torch.tensor([3.0, inf, nan, -4.0]), torch.ones(2, dtype=torch.float64)],
            lambda m, ps, c=max_norm: m.clip_grads_with_norm_(ps, c, torch.tensor(total, dtype=dtype)),
        )


def test_gradients_in_place_of_parameters_change_nothing():
    for module in (utils, ours):
        grad = torch.tensor([3.0, 4.0])
        assert module.clip_grads_with_norm_([grad], 1.0, torch.tensor(5.0)) is None
        assert grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("call", [
    lambda m, ps: m.clip_grad_norm_(ps, "a"), lambda m, ps: m.clip_grad_norm_(ps, None),
    lambda m, ps: m.clip_grad_norm_([], None), lambda m, ps: m.clip_grad_norm_(ps, 1.0, "fro"),
    lambda m, ps: m.clip_grad_norm_(None, 1.0), lambda m, ps: m.clip_grad_norm_([None], 1.0),
    lambda m, ps: m.clip_grad_norm_({"weight": ps[0]}, 1.0), lambda m, ps: m.clip_grad_value_(ps, "a"),
    lambda m, ps: m.clip_grad_value_(None, 1.0), lambda m, ps: m.clip_grads_with_norm_(ps, None, torch.tensor(1.0)),
    lambda m, ps: m.get_total_norm([None]), lambda m, ps: m.get_total_norm(ps, "fro"),
])  # fmt: skip
def test_wrong_arguments_raise_the_same(call):
    returned, after = assert_same_as_torch([torch.tensor([3.0, 4.0])], call)
    assert isinstance(returned, type)
    assert after == [[3.0, 4.0]]


def test_complex_values_have_no_order():
    returned, _ = assert_same_as_torch([torch.tensor([3 + 4j])], lambda m, ps: m.clip_grad_value_(ps, 1.0))
    assert returned is NotImplementedError
