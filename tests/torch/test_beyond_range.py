"""Norms, factors and results beyond what float64 or a gradient's dtype can hold; with the kernel and without it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
import gradclip.torch as drop_in
from gradclip import thresholds
from gradclip.backends import chooser, combine, combined_on_host, cpu
from gradclip.thresholds import Context

F16, F32, F64 = torch.float16, torch.float32, torch.float64
TOP = torch.finfo(F32).max


@pytest.fixture(params=["kernel", "stock"], autouse=True)
def which(request, monkeypatch):
    if request.param == "stock":
        monkeypatch.setattr(cpu, "_kernel", None)
        monkeypatch.setattr(chooser, "KERNELS", [])
    elif not cpu.enabled():
        pytest.skip("the kernel was not built, or is switched off")


def clipped(recipe, *grads, weights=None):
    """The result, and the gradients after, as they are named: a, b, c, ..."""
    weights = weights or [torch.zeros_like(g) for g in grads]
    parameters = {name: nn.Parameter(w) for name, w in zip("abcdef", weights, strict=False)}
    for parameter, grad in zip(parameters.values(), grads, strict=True):
        parameter.grad = grad
    result = gradclip.clip_(parameters, recipe)
    return result, [p.grad for p in parameters.values()]


def tensor(*values, dtype=F64):
    return torch.tensor(values, dtype=dtype)


def strided(*values, dtype=F64):
    """The same elements, with others between them."""
    return torch.stack([tensor(*values, dtype=dtype)] * 2, dim=1)[:, 0]


class TestBounds:
    @pytest.mark.parametrize(("high", "dtype"), [(1e5, F16), (1e39, F32), (1e39, torch.bfloat16)])
    @pytest.mark.parametrize("made", [tensor, strided])
    def test_what_lies_beyond_a_dtype_is_the_end_of_its_range(self, high, dtype, made):
        _, (a, b) = clipped(f"value:-1,{high}", made(-3.0, 5.0, dtype=dtype), made(-4.0, 2.0, dtype=dtype))
        assert (a.tolist(), b.tolist()) == ([-1.0, 5.0], [-1.0, 2.0])

    @pytest.mark.parametrize("made", [tensor, strided])
    def test_so_an_inf_is_clamped_to_it(self, made):
        _, (a,) = clipped("value:-1,1e5,nonfinite=propagate", made(math.inf, -math.inf, dtype=F16))
        assert a.tolist() == [65504.0, -1.0]
        _, (a,) = clipped("value:inf,nonfinite=propagate", made(math.inf, 1.0, dtype=F16))
        assert a.tolist() == [math.inf, 1.0]

    @pytest.mark.parametrize("bound", [0.1, 1 / 3, 7.0, 3e38, 1e-44])
    def test_no_complex_element_is_larger_than_its_bound(self, bound):
        torch.manual_seed(3)
        z = torch.randn(500, dtype=torch.complex64) * min(1e3 * bound, 1e38)
        before = z.to(torch.complex128)
        _, (a,) = clipped(f"value:{bound}", z)
        sizes = a.to(torch.complex128).abs()
        assert bool((sizes <= bound).all())
        if bound > 1e-37:
            want = before * (bound / before.abs()).clamp(max=1)
            torch.testing.assert_close(a.to(torch.complex128), want, rtol=3e-7, atol=0)

    def test_complex_elements_whose_size_is_beyond_their_dtype(self):
        for dtype, part in ((torch.complex64, 3e38), (torch.complex128, 1.5e308)):
            result, (a,) = clipped("value:1", tensor(complex(part, part), dtype=dtype))
            torch.testing.assert_close(a, tensor(complex(0.5**0.5, 0.5**0.5), dtype=dtype))
            assert not result.skipped


class TestScalingUp:
    def test_a_norm_below_the_normal_numbers(self):
        result, (a,) = clipped("normalize:1", tensor(3e-310, 4e-310))
        np.testing.assert_allclose(a.numpy(), [0.6, 0.8], rtol=1e-13)
        assert float(result.clipped_norm) == pytest.approx(1.0)

    def test_the_largest_element_stays_in_the_range_of_its_dtype(self):
        _, (a,) = clipped("normalize:1e5", tensor(1e-3, -2e-3, dtype=F16))
        assert a.tolist() == [pytest.approx(32752, rel=1e-3), -65504.0]

    def test_and_its_block_keeps_its_direction(self):
        _, (a, b) = clipped("normalize:1e7", tensor(1.0, 3.0, dtype=F32), tensor(2.0, dtype=F16))
        assert b.tolist() == [65504.0]
        np.testing.assert_allclose(a.numpy(), [32752, 98256], rtol=2e-6)

    def test_a_mean_near_the_top(self):
        _, (a,) = clipped("normalize:3e38,norm=rms", tensor(1.0, 0.0, 0.0, 0.0, dtype=F32))
        assert bool(a.isfinite().all())
        assert float(a[0]) == pytest.approx(TOP, rel=2e-6)

    def test_what_needs_no_limit_has_none(self):
        _, (a,) = clipped("normalize:1e6", torch.ones(10_000, dtype=F16))  # 1e4 each
        assert set(a.tolist()) == {10_000.0}

    @pytest.mark.parametrize("made", [tensor, strided])
    def test_a_band(self, made):
        parameter = nn.Parameter(torch.zeros(2, dtype=F16))
        clipper = gradclip.Clipper([parameter], gradclip.aggc(patterns="*", max_gain=math.inf))
        for grad in (made(6e4, 6e4, dtype=F16), made(1e-7, 2e-7, dtype=F16), made(1.0, 2.0, dtype=F16)):
            parameter.grad = grad
            clipper.clip_()
            assert bool(parameter.grad.isfinite().all())
        assert float(parameter.grad[1]) > 100

    @pytest.mark.parametrize("recipe", ["normalize:1.0", "stable_spam"])
    @pytest.mark.parametrize("made", [tensor, strided])
    def test_a_vanished_gradient_leaves_the_weights_finite(self, recipe, made):
        parameter = nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        with gradclip.attach(optimizer, recipe):
            parameter.grad = made(3e-42, 4e-42, dtype=F32)
            optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.tensor([0.94, 0.92]), rtol=1e-3, atol=0)

    def test_an_element_by_itself(self):
        _, (a,) = clipped(
            gradclip.Clipping(gradclip.PerElement(), threshold=1e5, rescale=gradclip.Normalize()),
            tensor(1e-7, -0.5, 0.0, dtype=F16),
        )
        assert a.tolist() == [65504.0, -65504.0, 0.0]


class TestNormsBeyondFloat64:
    """Every element is finite, so the gradient is."""

    LARGE = (1.5e308, -1.5e308, 1.5e308)
    SHARE = 1 / 3**0.5

    @pytest.mark.parametrize("made", [tensor, strided])
    @pytest.mark.parametrize("T", [1e300, 1.0, 1e-300])
    @pytest.mark.parametrize("recipe", ["global_norm", "tensor_norm", "normalize", "group_norm"])
    def test_it_is_clipped(self, made, T, recipe):
        more = "|1.0,patterns=*|none" if recipe == "group_norm" else ""
        result, (a,) = clipped(f"{recipe}:{T}{more}", made(*self.LARGE))
        np.testing.assert_allclose(a.numpy(), T * self.SHARE * np.array([1, -1, 1]), rtol=1e-13)
        assert (result.finite, result.skipped, result.nonfinite_names) == (True, False, ())
        assert float(result.clipped_norm) == pytest.approx(T)
        assert float(result.norm) == math.inf

    def test_beside_what_is_small(self):
        _, (a, b) = clipped("tensor_norm:1e-3", tensor(*self.LARGE), tensor(3.0, 4.0))
        np.testing.assert_allclose(a.numpy(), 1e-3 * self.SHARE * np.array([1, -1, 1]), rtol=1e-13)
        np.testing.assert_allclose(b.numpy(), [6e-4, 8e-4], rtol=1e-13)

    @pytest.mark.parametrize("p", [1, 3, 0.5])
    def test_in_other_norms(self, p):
        _, (a,) = clipped(f"global_norm:2.0,norm={p}", tensor(*self.LARGE))
        np.testing.assert_allclose(a.abs().numpy(), 2.0 / 3 ** (1 / p), rtol=1e-13)

    def test_together(self):
        """No norm of a tensor is beyond float64, only that of all."""
        result, (a, b) = clipped("global_norm:5.0", tensor(1.5e308), tensor(1.5e308))
        np.testing.assert_allclose([a.item(), b.item()], 5 * 0.5**0.5, rtol=1e-13)
        assert result.worst == "a"

    def test_soft_excluded_and_in_a_chain(self):
        _, (a,) = clipped("normalize:1.0,soft=true", tensor(*self.LARGE))
        np.testing.assert_allclose(a.abs().numpy(), self.SHARE, rtol=1e-13)
        _, (a, b) = clipped("global_norm:1.0,exclude=a", tensor(*self.LARGE), tensor(3.0, 4.0))
        assert a.tolist() == list(self.LARGE)
        np.testing.assert_allclose(b.numpy(), [0.6, 0.8], rtol=1e-13)
        result, (a,) = clipped(gradclip.Chain("value:1e308", "global_norm:1.0"), tensor(*self.LARGE))
        np.testing.assert_allclose(a.abs().numpy(), self.SHARE, rtol=1e-13)
        assert not result.skipped

    def test_units(self):
        rows = torch.tensor([[1.5e308, 1.5e308], [3.0, 4.0], [1e-3, 0.0]], dtype=F64)
        _, (a,) = clipped("agc:0.5,floor=2.0", rows)
        np.testing.assert_allclose(a.numpy(), [[0.5**0.5] * 2, [0.6, 0.8], [1e-3, 0.0]], rtol=1e-13)

    def test_a_mean_that_is_within(self):
        result, (a,) = clipped("block_rms:1e308", tensor(*self.LARGE))
        np.testing.assert_allclose(a.abs().numpy(), 1e308, rtol=1e-13)
        assert float(result.norm) == pytest.approx(1.5e308)

    def test_it_enters_a_history_as_the_largest_number(self):
        parameter = nn.Parameter(torch.zeros(3, dtype=F64))
        clipper = gradclip.Clipper([parameter], "norm_growth:2.0")
        for grad, want in ((tensor(0.6, 0.8, 0.0), 1.0), (tensor(*self.LARGE), 2.0), (tensor(30.0, 40.0, 0.0), 4.0)):
            parameter.grad = grad
            clipper.clip_()
            assert float(torch.linalg.vector_norm(parameter.grad)) == pytest.approx(want)

    def test_a_real_inf_is_still_found_beside_it(self):
        with pytest.warns(RuntimeWarning, match="'b'"):
            result, (a, b, _) = clipped("tensor_norm:1.0", tensor(*self.LARGE), tensor(math.inf, 1.0), tensor(1e200))
        assert result.nonfinite_names == ("b",)
        assert a is b is None

    @pytest.mark.parametrize("recipe", ["agc:0.01", "global_norm:1.0", "group_norm:1.0|1.0,patterns=a|*"])
    def test_no_innocent_tensor_is_named(self, recipe):
        grads = [torch.full((2, 2), 1e200, dtype=F64), torch.ones(2, 2), torch.full((2, 2), 1e200, dtype=F64)]
        grads[1][0, 0] = math.nan
        result, _ = clipped(recipe + ",nonfinite=propagate", *grads)
        assert result.nonfinite_names == ("b",)
        assert result.worst == "b"


class TestSmallFactors:
    @pytest.mark.parametrize("recipe", ["tensor_norm", "global_norm"])
    @pytest.mark.parametrize("made", [tensor, strided])
    def test_below_the_normal_numbers(self, recipe, made):
        _, (a,) = clipped(f"{recipe}:1e-20", made(4e306, 4e306, 4e306))
        np.testing.assert_allclose(a.numpy(), 1e-20 / 3**0.5, rtol=1e-13)
        _, (a, _) = clipped("tensor_norm:1e-20", made(4e306, 4e306, 4e306), made(1.0))
        np.testing.assert_allclose(a.numpy(), 1e-20 / 3**0.5, rtol=1e-13)

    @pytest.mark.parametrize("floor", [1e-3, 1e-6, 1e-9])
    def test_units_near_the_top_of_float32(self, floor):
        rows = torch.full((4, 4), 1e38)
        result, (a, b) = clipped(f"agc:0.01,floor={floor}", rows[:2].clone(), rows[::2, ::2])
        np.testing.assert_allclose(a.numpy(), 0.01 * floor / 2, rtol=5e-7)
        np.testing.assert_allclose(b.numpy(), 0.01 * floor / 2**0.5, rtol=5e-7)
        assert float(result.clipped_norm) == pytest.approx(0.01 * floor * 2, rel=1e-6)

    def test_twice_is_once(self):
        for recipe in ("tensor_norm:1e-20", "agc:0.01,floor=1e-6", "global_norm:1e-300"):
            _, (a,) = clipped(recipe, torch.full((3, 3), 4e306, dtype=F64))
            once = a.clone()
            _, (a,) = clipped(recipe, a)
            torch.testing.assert_close(a, once, rtol=1e-14, atol=0)

    def test_elements(self):
        _, (a,) = clipped(
            gradclip.Clipping(gradclip.PerElement(), threshold=1e-20, rescale=gradclip.Soft()), tensor(4e306, -1e-20, 0.0)
        )
        np.testing.assert_allclose(a.numpy(), [1e-20, -5e-21, 0.0], rtol=1e-13)


def test_group_norms_across_magnitudes():
    """Each block is measured by its own size."""
    result, (a, b) = clipped("group_norm:1|1,patterns=a|*,norm=8", tensor(1e38, 1e38, dtype=F32), tensor(3e-5, dtype=F32))
    assert result.factors.tolist() == [pytest.approx(1e-38 / 2 ** (1 / 8)), 1.0]
    np.testing.assert_allclose(a.numpy(), 2 ** (-1 / 8), rtol=5e-7)
    assert b.tolist() == [pytest.approx(3e-5)]
    cells = tensor(1e38, 1e-5, math.inf, 1e200)
    assert combine(cells, 8, torch.tensor([0, 1, 2, 1]), 3).tolist() == [1e38, 1e200, math.inf]


def test_two_tensors_in_a_group_beside_an_empty_group():
    """As many blocks as tensors need not be one each."""
    _, (a, b) = clipped("group_norm:1.0|inf,patterns=*|none", tensor(3.0), tensor(4.0))
    assert (a.tolist(), b.tolist()) == ([pytest.approx(0.6)], [pytest.approx(0.8)])


@pytest.mark.parametrize("dtype", [F16, torch.bfloat16, F32, F64])
@pytest.mark.parametrize(
    "recipe",
    ["global_norm:1.0", "tensor_norm:1.0", "agc:1.0,1.0", "value:0.5", "Clipping(PerElement(), threshold=1.0, rescale=Soft())"],
)
def test_a_gradient_whose_memory_holds_the_other_sign(dtype, recipe):
    made = [[[3.0, -4.0], [0.25, 0.5]], [[-6.0, 8.0], [0.0, 1.0]]]
    plain = clipped(recipe, *(torch.tensor(m, dtype=dtype) for m in made))[1]
    negative = clipped(recipe, *(torch._neg_view(-torch.tensor(m, dtype=dtype)) for m in made))[1]
    for one, other in zip(plain, negative, strict=True):
        torch.testing.assert_close(one, other.resolve_neg())


def test_a_chain_that_zeroes_measures_what_is_left():
    chain = gradclip.Chain("value:10.0,nonfinite=zero", "global_norm:1.0,nonfinite=zero")
    result, (a,) = clipped(chain, tensor(3.0, math.inf, 4.0))
    np.testing.assert_allclose(a.numpy(), [0.6, 0.0, 0.8], rtol=1e-13)
    assert float(result.norm) == pytest.approx(5.0)
    assert (result.finite, result.nonfinite_names, result.clipped) == (False, ("a",), True)


def test_a_complex_element_with_a_nan_part_is_zeroed():
    _, (a,) = clipped(
        "global_norm:1.0,nonfinite=zero", tensor(complex(math.nan, 7.0), complex(3.0, 4.0), dtype=torch.complex64)
    )
    torch.testing.assert_close(a, tensor(0j, complex(0.6, 0.8), dtype=torch.complex64))


class TestHistories:
    """The square of a norm overflows long before the norm does."""

    @pytest.mark.parametrize(
        "rule", [thresholds.ZScore(2.0, 0.9, 3), thresholds.SecondMoment(2.0, 0.9, 2), thresholds.Outlier(1.0, 4, 2),
                 thresholds.EmaRatio(warmup=2)], ids=lambda rule: type(rule).__name__
    )  # fmt: skip
    @pytest.mark.parametrize("scale", [2.0**900, 2.0**-900])
    def test_a_rule_has_no_scale(self, rule, scale):
        norms = torch.tensor([[1.0, 2.0], [1.5, 1.0], [1.2, 3.0], [9.0, 2.0], [1.1, 7.0]], dtype=F64)
        if isinstance(rule, thresholds.EmaRatio):
            rule, larger = thresholds.EmaRatio(warmup=2, warmup_norm=1.0), thresholds.EmaRatio(warmup=2, warmup_norm=scale)
        else:
            larger = rule
        state, other = rule.init(norms[0]), larger.init(norms[0])
        for step, row in enumerate(norms):
            limits, state = rule.limits(row, state, Context(step))
            far, other = larger.limits(row * scale, other, Context(step))
            torch.testing.assert_close(far / scale, limits + 0 * row, rtol=1e-12, atol=0)


def test_a_power_that_python_cannot_hold_is_inf():
    assert combined_on_host([1.0] * 1000, 1e-3) == math.inf
    ones = [torch.ones(1000)]
    assert float(drop_in.get_total_norm(ones, 1e-3)) == float(torch.nn.utils.get_total_norm(ones, 1e-3)) == math.inf
    assert isinstance(combined_on_host([], 2), float)


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("error", [True, False])
def test_the_drop_in_without_a_gradient(p, error):
    frozen = [nn.Parameter(torch.zeros(2))]
    for parameters in ([], frozen, frozen[0]):
        norm = drop_in.clip_grad_norm_(parameters, 1.0, p, error_if_nonfinite=error)
        assert isinstance(norm, torch.Tensor)
        assert norm == 0
    assert drop_in.get_total_norm([], p, error_if_nonfinite=error) == 0
    assert drop_in.clip_grad_norm([frozen[0]], 1.0, p, error_if_nonfinite=error) == [None]


@pytest.mark.parametrize("made", [tensor, strided])
def test_the_drop_in_clamps_to_a_bound_beyond_half_precision(made):
    parameters = [nn.Parameter(torch.zeros(2, dtype=F16)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = made(-3.0, 6e4, dtype=F16)
    drop_in.clip_grad_value_(parameters, 1e5)
    assert [p.grad.tolist() for p in parameters] == [[-3.0, 60000.0 - 60000.0 % 32]] * 2
