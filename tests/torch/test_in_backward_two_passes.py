"""InBackward with what needs all norms first: in two passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip
from tests.torch.early import (
    STEPS,
    adamw,
    afterwards,
    assert_same_results,
    assert_same_state,
    assert_same_weights,
    loss_of,
    net,
    optimizers,
    sgd,
)

SPANNING = {
    "global_norm": gradclip.global_norm(0.1),
    "global_norm, L1": gradclip.global_norm(0.1, norm=1),
    "global_norm, exclude": gradclip.global_norm(0.1, exclude="out.*"),
    "whole rms": gradclip.Clipping(gradclip.Global(), gradclip.RMS, gradclip.Constant(0.01)),
    "whole rms, exclude": gradclip.Clipping(gradclip.Global("out.weight"), gradclip.RMS, gradclip.Constant(0.01)),
    "rms of the weights": gradclip.Clipping(gradclip.Global(), gradclip.RMS, gradclip.Relative(0.01)),
    "group_norm": gradclip.group_norm({"out.*": 0.05, "*": 0.1}),
    "soft": gradclip.normalize(0.1, soft=True),
    "normalize": gradclip.normalize(0.1),
    "zclip": gradclip.zclip(0.5, 0.9, 3),
    "autoclip": gradclip.autoclip(20),
    "quantile": gradclip.quantile(0.5, 5),
    "aggc": gradclip.aggc(1.0, patterns=("out.*", "*")),
    "skip_step": gradclip.skip_step(0.5, 8, 3),
    "adagc": gradclip.adagc(1.0, 0.9, 4, 0.3),
    "trust": gradclip.trust(1e-3),
    "auto": gradclip.auto(2e-3, 1.0, 10),
}


def assert_two_forwards_are_exact(recipe):
    """A first pass with a forward of its own, then the one that steps."""
    wanted, _, _ = afterwards(recipe)
    model = net()
    in_backward = gradclip.InBackward(model, recipe, optimizers(model))
    for step in range(STEPS):
        with in_backward.measuring():
            loss_of(model, step).backward()
        loss_of(model, step).backward()
    assert_same_weights(model, wanted)


class TestTwoPasses:
    @pytest.mark.parametrize("clipping", SPANNING.values(), ids=SPANNING)
    def test_two_passes_are_what_a_clipper_does_afterwards(self, clipping):
        wanted, clipper, results = afterwards(clipping)
        model = net()
        in_backward = gradclip.InBackward(model, clipping, optimizers(model))
        for step in range(STEPS):
            loss = loss_of(model, step)
            with in_backward.measuring():
                loss.backward(retain_graph=True)
                assert all(p.grad is None for p in model.parameters())
            loss.backward()
            assert all(p.grad is None for p in model.parameters())
            assert_same_results(in_backward.result, results[step])
        assert_same_weights(model, wanted)
        assert any(bool(result.clipped) for result in results)
        assert_same_state(in_backward.state_dict(), clipper.state_dict())

    @pytest.mark.parametrize("make", [sgd, adamw])
    def test_two_passes_are_what_torch_does(self, make):
        plain, model = net(), net()
        optimizer = make(plain.parameters())
        in_backward = gradclip.InBackward(model, "global_norm:0.1", optimizers(model, make))
        for step in range(20):
            loss_of(plain, step).backward()
            norm = nn.utils.clip_grad_norm_(plain.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
            loss = loss_of(model, step)
            with in_backward.measuring():
                loss.backward(retain_graph=True)
            loss.backward()
            assert float(in_backward.result.norm) == pytest.approx(float(norm), rel=1e-5)
        assert_same_weights(model, plain, rtol=1e-4, atol=2e-6)  # torch's own has an eps of 1e-6

    def test_a_gradient_of_zeros_is_dropped_with_the_others(self):
        """It would still move a parameter whose optimizer has momentum."""
        one, two = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        stepped = []
        clipping = gradclip.Clipping(gradclip.Global(), gradclip.L2, gradclip.Constant(1.0), gradclip.Drop())
        in_backward = gradclip.InBackward([one, two], clipping, stepped.append)
        loss = (5 * one + 0 * two).sum()
        with in_backward.measuring():
            loss.backward(retain_graph=True)
        loss.backward()
        assert stepped == []
        assert one.grad is None
        assert two.grad is None

    def test_the_second_pass_may_be_a_forward_of_its_own(self):
        assert_two_forwards_are_exact("global_norm:0.1")

    def test_another_batch_in_the_second_pass_is_noticed(self):
        model = net()
        in_backward = gradclip.InBackward(model, "global_norm:0.1")
        with in_backward.measuring():
            loss_of(model, 0).backward()
        with pytest.warns(RuntimeWarning, match="other gradients than the one inside measuring"):
            loss_of(model, 3).backward()

    def test_without_a_first_pass_the_first_gradient_says_what_to_do(self):
        model = net()
        before = [p.clone() for p in model.parameters()]
        gradclip.InBackward(model, "global_norm:1.0", optimizers(model))
        with pytest.raises(gradclip.TargetError, match=r"measuring\(\).*agc"):
            loss_of(model, 0).backward()
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))

    def test_each_first_pass_serves_one_step(self):
        model = net()
        in_backward = gradclip.InBackward(model, "global_norm:1.0", optimizers(model))
        with in_backward.measuring():
            loss_of(model, 0).backward()
        loss_of(model, 0).backward()
        with pytest.raises(gradclip.TargetError, match="measuring"):
            loss_of(model, 0).backward()

    def test_a_first_pass_that_nothing_came_of_is_forgotten(self):
        model = net()
        in_backward = gradclip.InBackward(model, "trust:1e-3", optimizers(model))
        with in_backward.measuring():
            loss_of(model, 3).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(2)
        with in_backward.measuring():
            loss_of(model, 0).backward()
        loss_of(model, 0).backward()
        used = [p for n, p in net().named_parameters() if not n.startswith(("rare", "frozen"))]
        weights = 2 * torch.cat([p.detach().flatten() for p in used]).norm()
        assert float(in_backward.result.limits) == pytest.approx(1e-3 * float(weights) / 0.1, rel=1e-5)  # lr / (1 - momentum)
        with in_backward.measuring():
            loss_of(model, 0).backward()
        with pytest.raises(gradclip.TargetError, match="no gradient"), in_backward.measuring():
            pass
        with pytest.raises(gradclip.TargetError, match="needs the norms of all"):
            loss_of(model, 0).backward()

    def test_a_first_pass_measures_one_backward(self):
        model = net()
        in_backward = gradclip.InBackward(model, "global_norm:1.0")
        with pytest.raises(gradclip.TargetError, match="no gradient appeared"), in_backward.measuring():
            pass
        both = loss_of(model, 0), loss_of(model, 0)
        with pytest.raises(gradclip.TargetError, match="appeared twice"), in_backward.measuring():
            [loss.backward() for loss in both]
        with pytest.raises(gradclip.TargetError, match="needs the norms of all"):  # what failed is not used
            loss_of(model, 0).backward()

    def test_methods_that_go_tensor_by_tensor_take_a_first_pass_too(self):
        assert_two_forwards_are_exact("agc:0.01")

    def test_units_that_need_other_tensors_are_refused(self):
        with pytest.raises(gradclip.TargetError, match="clip parts of one"):
            gradclip.InBackward(net(), gradclip.Clipping(gradclip.PerUnit(), gradclip.L2, gradclip.adagc().threshold))
