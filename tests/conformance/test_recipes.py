"""Every recipe, every dtype, every layout: the fast path does what the reference says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip import Global, PerElement, PerTensor, PerUnit
from gradclip.thresholds import Constant, Relative
from tests.support import TOLERANCE, assert_matches, expected, numpy_of, parameters

RECIPES = [
    "global_norm:1.0", "global_norm:1.0,norm=1", "global_norm:0.5,norm=inf", "global_norm:0.2,norm=rms",
    "global_norm:2,norm=3", "global_norm:2,norm=0.5", "global_norm:1000", "global_norm:inf",
    "value:0.3", "value:-0.1,0.5", "value:0,0.5", "value:100",
    "tensor_norm:0.7", "tensor_norm:1,norm=inf", "group_norm:1|0.3,patterns=encoder.*|*", "group_norm:0.5,patterns=*",
    "block_rms:0.5", "block_rms:1,exclude=*.bias", "normalize:0.1", "normalize:50", "normalize:2,soft=true",
    "normalize:2,soft=2", "normalize:0.5,soft=0.5",
    "agc:0.01", "agc:0.3,axis=-1", "agc:0.02,exclude=conv.*", "agc:0.1,floor=1",
    "global_norm:linear(1,0.1,10)", "tensor_norm:cosine(1,0.1,10)",
]  # fmt: skip
POINTS = [
    gradclip.Clipping(PerElement(), gradclip.L2, Relative(0.5), gradclip.Soft()),
    gradclip.Clipping(PerUnit(), gradclip.L2, Constant(0.3), gradclip.Soft(8)),
    gradclip.Clipping(PerElement(("conv.*",)), gradclip.L2, Relative(0.5), gradclip.Hard()),
    gradclip.Clipping(PerElement(), gradclip.L2, Constant(0.5), gradclip.Drop()),
    gradclip.Clipping(PerElement(), gradclip.L2, Constant(0.5), gradclip.Normalize()),
    gradclip.Clipping(PerTensor(), gradclip.L2, Constant(3.0), gradclip.Drop()),
    gradclip.Clipping(PerTensor(), gradclip.L2, Constant(4.0), gradclip.Band(0.8)),
    gradclip.Clipping(PerTensor(), gradclip.L1, Constant(40.0), gradclip.Band(0.5, max_gain=1.5)),
    gradclip.Clipping(Global(), gradclip.L2, Relative(0.01), gradclip.Hard()),
    gradclip.Clipping(PerUnit(), gradclip.RMS, Constant(0.3), gradclip.Hard()),
    gradclip.Clipping(PerUnit(), gradclip.LINF, Constant(0.5), gradclip.Hard()),
    gradclip.Clipping(PerTensor(), gradclip.L2, Constant(4.0), gradclip.Band(gradclip.Linear(0.8, 0.2, 10))),
    gradclip.Clipping(PerTensor(), gradclip.LINF, Constant(0.5), gradclip.Clamp()),
    gradclip.Clipping(PerTensor(("conv.*",)), gradclip.LINF, Relative(0.3), gradclip.Clamp()),
    gradclip.Clipping(Global(), gradclip.LINF, Constant(1.5), gradclip.Clamp(), gradclip.Propagate()),
]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]


def _all() -> list[gradclip.Clipping]:
    return [gradclip.parse(spelling) for spelling in RECIPES] + POINTS


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clipping", _all(), ids=str)
def test_matches_the_reference(clipping, dtype):
    target = parameters(dtype)
    if dtype.is_complex and isinstance(clipping.threshold, gradclip.Bounds) and not clipping.threshold.symmetric:
        with pytest.raises(gradclip.TargetError, match="complex"):
            gradclip.clip_(target, clipping)
        return
    want = expected(clipping, target)
    result = gradclip.clip_(target, clipping)
    assert_matches(target, want)
    assert float(result.norm) == pytest.approx(want.norm, rel=1e-6)
    assert float(result.clipped_norm) == pytest.approx(want.clipped_norm, rel=TOLERANCE[dtype], abs=1e-12)
    assert bool(result.clipped) == any(f != 1 for f in want.factors)
    assert result.finite
    assert target["frozen"].grad is None


def _noncontiguous(grad):
    return torch.randn(grad.shape[::-1]).permute(tuple(reversed(range(grad.dim()))))


def _sliced(grad):
    return torch.randn([2 * n + 1 for n in grad.shape])[tuple(slice(1, None, 2) for _ in grad.shape)]


def _expanded(grad):
    return torch.randn(()).expand(grad.shape)


LAYOUTS = {"permuted": _noncontiguous, "sliced": _sliced, "expanded": _expanded}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("clipping", _all(), ids=str)
def test_matches_on_strided_views(clipping, layout):
    target = parameters()
    for parameter in target.values():
        if parameter.grad is not None and parameter.numel():
            parameter.grad = LAYOUTS[layout](parameter.grad)
    want = expected(clipping, target)
    gradclip.clip_(target, clipping)
    assert_matches(target, want)


@pytest.mark.parametrize("clipping", _all(), ids=str)
def test_sparse_rows_are_merged_then_measured(clipping):
    """A row that appears twice counts with the sum of its gradients, and the gradient stays sparse."""
    table = nn.Parameter(torch.randn(7, 4))
    rows = torch.tensor([[1, 3, 1, 6]])
    table.grad = torch.sparse_coo_tensor(rows, torch.randn(4, 4), (7, 4), check_invariants=True)
    dense = nn.Parameter(torch.randn(5))
    dense.grad = torch.randn(5)
    target = {"encoder.table": table, "conv.bias": dense}
    if isinstance(clipping.scope, PerUnit) and clipping.scope.axis == -1:
        with pytest.raises(gradclip.TargetError, match="first axis"):
            gradclip.clip_(target, clipping)
        return
    want = expected(clipping, target)
    result = gradclip.clip_(target, clipping)
    if table.grad is None:
        assert isinstance(clipping.rescale, gradclip.Drop)
        assert not want.grads[0].any()
        return
    assert table.grad.is_sparse
    np.testing.assert_allclose(numpy_of(table.grad), want.grads[0], rtol=1e-6, atol=1e-12)
    assert float(result.norm) == pytest.approx(want.norm, rel=1e-6)


def test_mixed_dtypes_share_one_norm():
    target = {str(d): nn.Parameter(torch.randn(50, dtype=d)) for d in DTYPES}
    for parameter in target.values():
        parameter.grad = torch.randn_like(parameter)
    want = expected(gradclip.global_norm(1.0), target)
    result = gradclip.clip_(target, gradclip.global_norm(1.0))
    assert_matches(target, want, least=1e-7)  # the shared norm is no more exact than its float32 part
    assert float(result.norm) == pytest.approx(want.norm, rel=1e-6)


def test_units_follow_the_layer():
    """Output units lie along axis 0, along axis 1 in transposed convolutions, and split by groups there."""
    model = nn.Sequential(
        nn.Linear(5, 4), nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.ConvTranspose1d(4, 3, 2)
    )
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    grads = [p.grad.clone() for p in model.parameters()]
    gradclip.clip_(model, gradclip.agc(0.05, nonfinite="raise"))
    linear, _, conv, _, transposed, _, transposed1d, _ = (
        (p.grad, g, p.detach()) for p, g in zip(model.parameters(), grads, strict=True)
    )

    def limit(new, grad, weight):
        largest = 0.05 * max(float(weight.norm()), 1e-3)
        torch.testing.assert_close(new, grad * min(1.0, largest / float(grad.norm())))

    for unit in range(4):
        limit(*(t[unit] for t in linear))
    for unit in range(6):
        limit(*(t[unit] for t in conv))
    for group, unit in ((g, u) for g in range(2) for u in range(2)):
        limit(*(t[3 * group : 3 * group + 3, unit] for t in transposed))
    for unit in range(3):
        limit(*(t[:, unit] for t in transposed1d))


def test_optimizer_groups_are_the_groups():
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    optimizer = torch.optim.SGD([{"params": a.parameters()}, {"params": b.parameters()}], lr=0.1)
    for p in [*a.parameters(), *b.parameters()]:
        p.grad = torch.randn_like(p)
    want = expected(gradclip.group_norm([1.0, 0.1]), optimizer)
    gradclip.clip_(optimizer, gradclip.group_norm([1.0, 0.1]))
    assert_matches(optimizer, want)
    norms = [sum(float(p.grad.norm()) ** 2 for p in m.parameters()) ** 0.5 for m in (a, b)]
    assert norms == pytest.approx([1.0, 0.1], rel=1e-6)


def test_a_schedule_follows_the_step():
    for step in (0, 3, 10, 20):
        target = parameters()
        clipping = gradclip.Clipping(threshold=gradclip.Schedule(lambda s: 1.0 / (1 + s)))
        want = expected(clipping, target, step)
        gradclip.clip_(target, clipping, step=step)
        assert_matches(target, want)
        assert want.clipped_norm == pytest.approx(1 / (1 + step))


def test_tied_parameters_count_once():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    result = gradclip.clip_([weight, weight], gradclip.global_norm(1.0))
    assert float(result.norm) == 5.0
    assert weight.grad.tolist() == pytest.approx([0.6, 0.8])


def test_thousands_of_tensors():
    target = [nn.Parameter(torch.zeros(10)) for _ in range(3000)]
    for p in target:
        p.grad = torch.randn(10)
    want = expected(gradclip.global_norm(1.0), target)
    assert float(gradclip.clip_(target, gradclip.global_norm(1.0)).norm) == pytest.approx(want.norm, rel=1e-7)
    assert_matches(target, want)
