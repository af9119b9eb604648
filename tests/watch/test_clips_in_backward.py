"""Gradients that ``InBackward`` clips as they appear: norms before and after, wherever they are stepped."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradclip
from gradclip.runs import Run
from tests.watch.support import net

LIMIT = 0.01


def norms(model, inputs):
    """The norm of each gradient, worked out apart."""
    grads = torch.autograd.grad((100 * model(inputs)).square().mean(), list(model.parameters()))
    return [float(g.norm()) for g in grads]


@pytest.fixture
def train(recording):
    """Train with ``InBackward``, stepping in ``backward`` or after it; return the run and the norms that are true of it."""

    def run(inside, recipe=f"tensor_norm:{LIMIT}", steps=4):
        torch.manual_seed(0)
        model = net()
        optimizers = [torch.optim.SGD([p], lr=1e-6) for p in model.parameters()]
        together = torch.optim.SGD(model.parameters(), lr=1e-6)
        then = dict(zip(model.parameters(), optimizers, strict=True)) if inside else None
        clipping = gradclip.InBackward(model, recipe, then)
        running = recording(*(() if inside else (model, together)))
        want = []
        for _ in range(steps):
            inputs = torch.randn(8, 3)
            want.append(norms(model, inputs))
            (100 * model(inputs)).square().mean().backward()
            if not inside:
                together.step()
                together.zero_grad()
        running.close()
        clipping.detach()
        return Run.open(running.path), np.array(want)

    return run


@pytest.mark.parametrize("inside", [True, False], ids=["stepped in backward", "stepped after it"])
def test_norms_before_and_after_are_recorded(train, inside):
    run, want = train(inside)
    with run:
        (number,) = run.optimizers
        steps = run.steps(number)
        np.testing.assert_allclose(steps.norm, np.linalg.norm(want, axis=1), rtol=1e-5)
        np.testing.assert_allclose(steps.clipped_norm, np.linalg.norm(np.minimum(want, LIMIT), axis=1), rtol=1e-5)
        assert steps.clipped.all()
        for *_, events in run.events()[4 if inside else 1 :]:  # the optimizers are one once all have stepped
            kinds = [event.kind for event in events if event.kind in ("clip", "step")]
            assert kinds == ["clip", "step"]
            (clip,) = [event for event in events if event.kind == "clip"]
            assert (clip.function, clip.reached, clip.owned, clip.threshold) == (f"tensor_norm:{LIMIT}", 4, 4, LIMIT)


@pytest.mark.parametrize("inside", [True, False], ids=["stepped in backward", "stepped after it"])
def test_a_limit_that_nothing_reaches_clips_nothing(train, inside):
    run, want = train(inside, "tensor_norm:1e6")
    with run:
        (number,) = run.optimizers
        steps = run.steps(number)
        np.testing.assert_allclose(steps.norm, np.linalg.norm(want, axis=1), rtol=1e-5)
        assert not steps.clipped.any()


def test_training_is_the_same_under_watch(recording):
    def weights(watched):
        torch.manual_seed(1)
        model = net()
        own = {p: torch.optim.Adam([p]) for p in model.parameters()}
        with gradclip.InBackward(model, "agc:0.01", own):
            running = recording() if watched else None
            for _ in range(5):
                nn.functional.mse_loss(model(torch.randn(8, 3)), torch.ones(8, 1)).backward()
            if running is not None:
                running.close()
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    assert torch.equal(weights(True), weights(False))
