"""Stable-SPAM's gradient part against its package, over a thousand spiky steps; where it departs, that is asserted."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip import thresholds
from gradclip.thresholds import Context
from tests.adaptive.support import run, run_numpy, spiky_norms
from tests.scripts.support import program, watched

pytorch_optimizer = pytest.importorskip("pytorch_optimizer")

SMALL = 1e-3
"""Elements that no limit of these runs reaches, so that only the largest element is cut, which the original clamps too."""


def original(parameters: list[nn.Parameter], eps: float = 0.0):
    return pytorch_optimizer.StableSPAM(parameters, eps=eps, update_proj_gap=10**9, foreach=False)


def peaks(size: int, largest: float) -> torch.Tensor:
    """A gradient of small elements but one."""
    grad = torch.full((size,), SMALL, dtype=torch.float64)
    grad[1] = -largest
    return grad


def made(*sizes: int, dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(size, dtype=dtype)) for size in sizes]


def give(parameters: list[nn.Parameter], grads: list[torch.Tensor]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.clone()


def test_a_thousand_steps():
    norms = spiky_norms(blocks=3, zeros=0)
    assert norms.min() > 10 * SMALL
    ours, theirs = made(2, 5, 40), made(2, 5, 40)
    optimizer, clipper = original(theirs), gradclip.Clipper(ours, gradclip.stable_spam())
    cut = 0
    for row in norms:
        grads = [peaks(p.numel(), largest) for p, largest in zip(ours, row, strict=True)]
        give(ours, grads)
        give(theirs, grads)
        optimizer.step()
        before = [float(g.norm()) for g in grads]
        result = clipper.clip_()
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.grad, other.grad, rtol=1e-10)
        np.testing.assert_allclose(result.tensor_norms, before, rtol=1e-12)
        np.testing.assert_allclose(result.clipped_tensor_norms, [float(p.grad.norm()) for p in ours], rtol=1e-12)
        cut += sum(bool(g[1] / g[0] < 1.0001 * p.grad[1] / p.grad[0]) for g, p in zip(grads, ours, strict=True))
    assert 100 < cut < 2900  # the clamp is reached, and not always


def test_departure_what_exceeds_the_limit_is_clamped_to_it():
    """The original multiplies it by limit / largest: what is just above the limit ends below what is just under it."""
    steady = torch.tensor([1.0, 0.5, 0.5, 0.5], dtype=torch.float64)
    spike = torch.tensor([10.0, 1.2, 0.9, -2.0], dtype=torch.float64)
    ours, theirs = made(4), made(4)
    optimizer, clipper = original(theirs), gradclip.Clipper(ours, gradclip.stable_spam())
    for grad in [steady] * 50 + [spike]:
        give(ours, [grad])
        give(theirs, [grad])
        optimizer.step()
        clipper.clip_()
    limit = float(clipper.state_dict()["threshold.0.mean"][0])
    assert 1.1 < limit < 1.2
    ratios = ours[0].grad / ours[0].grad[2] * 0.9
    np.testing.assert_allclose(ratios, [limit, limit, 0.9, -limit], rtol=1e-12)
    ratios = theirs[0].grad / theirs[0].grad[2] * 0.9
    np.testing.assert_allclose(ratios, [limit, 0.12 * limit, 0.9, -0.2 * limit], rtol=1e-12)


def test_departure_its_epsilon_shortens_small_norms():
    ours, theirs = made(2), made(2)
    give(ours, [peaks(2, 1.0) * 1e-9])
    give(theirs, [peaks(2, 1.0) * 1e-9])
    original(theirs, eps=1e-8).step()
    gradclip.Clipper(ours, gradclip.stable_spam()).clip_()
    assert float(theirs[0].grad.norm()) < 0.1
    assert float(ours[0].grad.norm()) == pytest.approx(1.0, rel=1e-12)


def test_departure_a_tensor_that_comes_late():
    """The original divides its average, one step old, by what a thousand steps would have weighed."""
    ours, theirs = made(2, 2), made(2, 2)
    optimizer, clipper = original(theirs), gradclip.Clipper(ours, gradclip.stable_spam())
    for step in range(1001):
        for parameters in (ours, theirs):
            give(parameters, [peaks(2, 1.0)] * 2)
            if step < 1000:
                parameters[1].grad = None
        optimizer.step()
        clipper.clip_()
    assert 1 < float(-theirs[1].grad[1] / theirs[1].grad[0]) < 2  # the largest element is cut to the size of the smallest
    assert float(-ours[1].grad[1] / ours[1].grad[0]) == pytest.approx(1 / SMALL)
    assert float(ours[1].grad.norm()) == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore:gradclip skipped a step")
def test_departure_one_nan_disables_the_original():
    ours, theirs = made(3), made(3)
    optimizer, clipper = original(theirs), gradclip.Clipper(ours, gradclip.stable_spam())
    for bad in (1.0, math.nan, 1.0):
        for parameters in (ours, theirs):
            give(parameters, [torch.tensor([1.0, bad, 2.0], dtype=torch.float64)])
        optimizer.step()
        clipper.clip_()
    assert theirs[0].grad.isnan().all()
    assert float(ours[0].grad.norm()) == pytest.approx(1.0)


def test_a_skipped_step_ends_in_the_first_stage():
    parameters = made(3, 2)
    clipper = gradclip.Clipper(parameters, gradclip.stable_spam())
    give(parameters, [torch.ones(3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)])
    clipper.clip_()
    before = clipper.state_dict()
    give(parameters, [torch.tensor([1.0, math.inf, 1.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64)])
    with pytest.warns(RuntimeWarning, match="gradclip skipped a step: non-finite gradient in '0'"):
        result = clipper.clip_()
    assert result.skipped
    assert [p.grad for p in parameters] == [None, None]
    after = clipper.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before if key.startswith("threshold."))
    assert (after["step"], after["skipped"]) == (2, 1)


class TestMoments:
    def test_the_first_step_is_brought_to_one(self):
        norms = np.array([1e-200, 1e-3, 1.0, 7.0, 1e200])
        rule = thresholds.Moments()
        limits, _ = rule.limits(norms, rule.init(norms), Context())
        assert (limits == 1).all()

    @pytest.mark.parametrize("size", [1e-150, 1e-30, 0.1, 1e30, 1e300])
    def test_a_steady_norm_is_brought_to_one(self, size):
        assert (run_numpy(thresholds.Moments(), np.full((300, 2), size)) == 1).all()

    def test_the_scale_is_lost(self):
        """The same run in another unit has the same limits: no limit of a norm, and wrong where the norm is the step."""
        norms = spiky_norms(200)
        np.testing.assert_array_equal(run_numpy(thresholds.Moments(), norms * 2.0**80), run_numpy(thresholds.Moments(), norms))

    def test_no_square_overflows(self):
        norms = spiky_norms(300, zeros=0)
        found, state = run(thresholds.Moments(), norms * 1e295)
        np.testing.assert_allclose(found, run_numpy(thresholds.Moments(), norms), rtol=1e-12)
        assert all(np.isfinite(value).all() for value in state.values())

    def test_a_norm_that_varies_is_brought_below_one(self):
        limits = run_numpy(thresholds.Moments(), np.where(np.arange(200) % 2, 3.0, 0.1)[:, None])
        assert (limits[50:] < 0.95).all()


def test_a_spike_stays_in_the_mean_for_as_long_as_it_remembers():
    """Its docstring says so: it averages what it has not clipped, as the paper does."""
    norms = np.ones((4000, 1))
    norms[1000] = 1000.0
    limits = run_numpy(thresholds.Mean(), norms)[:, 0]
    assert limits[999] == 1.0
    assert limits[1001] > 2
    assert limits[2000] == pytest.approx(1 + (limits[1000] - 1) * math.exp(-1), rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_dtypes_end_at_a_norm_of_one(dtype):
    parameters = made(6, dtype=dtype)
    parameters[0].grad = torch.randn(6).mul(0.01).to(dtype)
    gradclip.Clipper(parameters, gradclip.stable_spam()).clip_()
    assert float(parameters[0].grad.to(torch.complex128).abs().norm()) == pytest.approx(1.0, rel=1e-2)


def test_what_is_excluded_is_left_alone():
    parameters = {"a": nn.Parameter(torch.ones(3)), "head.b": nn.Parameter(torch.ones(3))}
    clipper = gradclip.Clipper(parameters, gradclip.stable_spam(exclude="head.*"))
    for parameter in parameters.values():
        parameter.grad = torch.tensor([1.0, 30.0, 2.0])
    result = clipper.clip_()
    assert parameters["head.b"].grad.tolist() == [1.0, 30.0, 2.0]
    assert float(result.norm) == pytest.approx(905**0.5)
    assert float(result.clipped_norm) == pytest.approx(1.0)
    assert clipper.state_dict()["threshold.0.mean"].shape == (1,)


def trained(optimizer_of, steps: int, resume_at: int | None = None) -> tuple[float, float, nn.Module]:
    """Fit a line through a small network, with a spike in every tenth step; the first and the last loss."""
    torch.manual_seed(0)
    inputs = torch.randn(64, 3)
    targets = inputs.sum(1, keepdim=True)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = optimizer_of(net.parameters())
    handle = gradclip.attach(optimizer, gradclip.stable_spam(), parameters=net)
    losses = []
    for step in range(steps):
        if step == resume_at:
            file = io.BytesIO()
            torch.save(handle.state_dict(), file)
            handle.detach()
            handle = gradclip.attach(optimizer, "stable_spam", parameters=net)
            file.seek(0)
            handle.load_state_dict(torch.load(file, weights_only=True))
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(inputs), targets)
        (loss * (1000 if step % 10 == 9 else 1)).backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    handle.detach()
    return losses[0], losses[-1], net


def test_attached_to_adamw_it_trains_and_resumes_bit_for_bit():
    first, last, net = trained(lambda p: torch.optim.AdamW(p, lr=0.01), 150)
    assert last < first / 50
    _, _, resumed = trained(lambda p: torch.optim.AdamW(p, lr=0.01), 150, resume_at=77)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), resumed.parameters(), strict=True))


def test_a_script_can_be_run_with_it(tmp_path):
    done = watched(program("adam_scheduled"), tmp_path, "--clip", "stable_spam")
    assert done.code == 0, done.stderr
    with done.open() as recorded:
        assert recorded.meta["clip"] == "stable_spam"
        steps, tensors = recorded.steps(), len(recorded.tensors_of())
        assert steps.clipped_norm[0] == pytest.approx(tensors**0.5, rel=1e-5)  # the first step: each tensor has the norm 1
        assert (steps.clipped_norm < 1.3 * tensors**0.5).all()
        assert not np.allclose(steps.norm, steps.clipped_norm)


def test_under_sgd_every_tensor_moves_by_about_lr():
    """However small its gradient is: that is why it is for Adam."""
    parameters = made(3, 3)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    with gradclip.attach(optimizer, "stable_spam"):
        give(parameters, [torch.full((3,), size, dtype=torch.float64) for size in (1e-9, 1e9)])
        optimizer.step()
    assert [float((p.detach() - 1).norm()) for p in parameters] == pytest.approx([0.1, 0.1])
