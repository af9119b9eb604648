"""Numbers at the edge of what a dtype can hold, and one bad value among many."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import gradclip
from gradclip.norms import as_norm
from tests import reference
from tests.support import numpy_of


def parameter(grad) -> nn.Parameter:
    made = nn.Parameter(torch.zeros_like(grad))
    made.grad = grad
    return made


@pytest.mark.parametrize("norm", [1, 2, 3, "inf", "rms"])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e30, torch.float32), (3e38, torch.float32), (6e4, torch.float16), (3e38, torch.bfloat16), (1e300, torch.float64)],
)
def test_huge_finite_gradients_are_clipped_not_zeroed(value, dtype, norm):
    p = parameter(torch.full((1000,), value, dtype=dtype))
    result = gradclip.clip_([p], gradclip.global_norm(1.0, norm=norm, nonfinite="raise"))
    assert math.isfinite(float(result.norm))
    after = reference.norm_of(numpy_of(p.grad), as_norm(norm))
    assert after == pytest.approx(1.0, rel=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
@pytest.mark.parametrize(("value", "dtype"), [(1e-40, torch.float32), (1e-25, torch.float32), (1e-7, torch.float16)])
def test_tiny_gradients_are_measured(value, dtype, size):
    """Their squares vanish in float32; the norm does not."""
    p = parameter(torch.full((size,), value, dtype=dtype))
    want = float(numpy_of(p.grad)[0]) * math.sqrt(size)
    assert float(gradclip.clip_([p], gradclip.global_norm(1.0)).norm) == pytest.approx(want, rel=1e-6)


def test_tiny_and_huge_together():
    """Elements that differ by sixty orders of magnitude: the small ones are lost in the norm and kept in the gradient."""
    p = parameter(torch.tensor([1e30, 1e-30, 1e-20]))
    gradclip.clip_([p], gradclip.global_norm(1e30))
    assert p.grad.tolist() == pytest.approx([1e30, 1e-30, 1e-20])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sixty_four_million_elements(dtype):
    """One large tensor: the sum does not drift (torch's own norm is 5e-3 off here in float32)."""
    p = parameter(torch.full((1 << 26,), 0.01, dtype=dtype))
    want = float(p.grad[0]) * 2.0**13
    assert float(gradclip.clip_([p], gradclip.global_norm(math.inf)).norm) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("recipe", ["global_norm:1", "tensor_norm:1", "value:1", "agc:0.01", "global_norm:1,norm=inf"])
class TestOneBadValueAmongAThousandTensors:
    @pytest.fixture
    def model(self, bad):
        target = {f"layer{i}": parameter(torch.ones(3, 2)) for i in range(1000)}
        target["layer617"].grad[1, 1] = bad
        return target

    def test_skip_drops_every_gradient_and_names_the_one(self, model, recipe):
        with pytest.warns(RuntimeWarning, match=r"skipped a step.*'layer617'\."):
            result = gradclip.clip_(model, recipe)
        assert all(p.grad is None for p in model.values())
        assert result.skipped
        assert not result.finite
        assert result.nonfinite_names == ("layer617",)
        assert float(result.clipped_norm) == 0
        assert result.worst == "layer617"

    def test_raise_changes_nothing(self, model, recipe, bad):
        with pytest.raises(gradclip.NonFiniteGradientError, match="'layer617'") as error:
            gradclip.clip_(model, recipe + ",nonfinite=raise")
        assert error.value.names == ("layer617",)
        assert all(torch.equal(p.grad, torch.ones(3, 2)) for name, p in model.items() if name != "layer617")
        assert torch.equal(model["layer617"].grad.isfinite(), torch.tensor([[1, 1], [1, 0], [1, 1]], dtype=torch.bool))

    def test_zero_drops_the_element_and_clips_the_rest(self, model, recipe):
        result = gradclip.clip_(model, recipe + ",nonfinite=zero")
        again = {name: parameter(torch.ones(3, 2)) for name in model}
        again["layer617"].grad[1, 1] = 0
        gradclip.clip_(again, recipe)
        assert all(torch.equal(p.grad, again[name].grad) for name, p in model.items())
        assert result.nonfinite_names == ("layer617",)

    def test_propagate_does_what_the_arithmetic_does(self, model, recipe, bad):
        gradclip.clip_(model, recipe + ",nonfinite=propagate")
        others = torch.stack([p.grad for name, p in model.items() if name != "layer617"])
        if recipe.startswith("global_norm"):
            assert others.isnan().all() if math.isnan(bad) else (others == 0).all()
        else:
            assert others.isfinite().all()
        clamped = recipe.startswith("value") and not math.isnan(bad)
        assert bool(model["layer617"].grad[1, 1].isnan()) != clamped


def test_a_copy_under_skip_is_none():
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert gradclip.clip({"a": torch.tensor([1.0]), "b": torch.tensor([math.nan])}, "global_norm:1") == {
            "a": None,
            "b": None,
        }


def test_nothing_to_clip():
    """No gradients, no parameters, empty tensors, all zeros."""
    frozen = nn.Parameter(torch.zeros(3))
    empty, zero = parameter(torch.zeros(0, 4)), parameter(torch.zeros(5))
    for target in ([], [frozen], [empty], [zero], [frozen, empty, zero]):
        for recipe in ("global_norm:1", "value:1", "tensor_norm:1", "agc", "normalize", "block_rms", "global_norm:1,norm=rms"):
            result = gradclip.clip_(target, recipe)
            assert float(result.norm) == 0
            assert not bool(result.clipped)
            assert float(result.coefficient) == 1
    assert zero.grad.tolist() == [0] * 5
