"""InBackward and gradients with a NaN or Inf."""

from __future__ import annotations

import math

import pytest
import torch

import gradclip
from tests.torch.early import loss_of, net, optimizers, poisoned


class TestNonfinite:
    @pytest.mark.parametrize("clipping", ["tensor_norm:0.05", "agc:0.01", "value:0.01", "quantile:0.5,5,true"])
    def test_skip_drops_that_gradient_alone(self, clipping):
        model, clean = net(), net()
        stepped = []
        in_backward = gradclip.InBackward(model, clipping, stepped.append)
        loss_of(model, 0).backward()
        model.zero_grad()
        stepped.clear()
        with pytest.warns(RuntimeWarning, match=r"dropped the non-finite gradient of 'first.bias'.*was not stepped"):
            poisoned(model, "first.bias", 0)
        assert model.first.bias.grad is None
        assert len(stepped) == 5
        assert not any(p is model.first.bias for p in stepped)
        result = in_backward.result
        assert (result.nonfinite_names, result.skipped, bool(result.finite)) == (("first.bias",), False, False)
        assert (in_backward.skipped, in_backward.skipped_in_a_row) == (1, 1)
        others = gradclip.Clipper({n: p for n, p in clean.named_parameters() if n != "first.bias"}, clipping)
        for _ in range(2):
            clean.zero_grad()
            loss_of(clean, 0).backward()
            others.clip_()
        for (name, p), q in zip(model.named_parameters(), clean.parameters(), strict=True):
            if p.grad is not None:
                torch.testing.assert_close(p.grad, q.grad, msg=name)

    def test_what_is_dropped_teaches_nothing(self):
        clipping = "quantile:0.5,5,per_tensor=true"
        model = net()
        in_backward = gradclip.InBackward(model, clipping, lambda p: setattr(p, "grad", None))
        loss_of(model, 0).backward()
        before = in_backward.state_dict()
        with pytest.warns(RuntimeWarning, match="dropped"):
            poisoned(model, "first.bias", 0)
        after = in_backward.state_dict()
        at = in_backward.names.index("first.bias")
        assert int(before["threshold.count"][at]) == int(after["threshold.count"][at]) == 1
        assert int(after["threshold.count"][at - 1]) == 2

    def test_the_count_of_steps_goes_on_though_the_last_gradient_is_dropped(self):
        model = net()
        in_backward = gradclip.InBackward(model, "spam:1.2,0.9,3", lambda p: setattr(p, "grad", None))
        loss_of(model, 0).backward()
        with pytest.warns(RuntimeWarning, match="dropped"):
            poisoned(model, "first.weight", 0)
        assert int(in_backward.state_dict()["threshold.count"]) == 2

    def test_a_history_of_all_tensors_does_not_learn_from_such_a_step(self):
        model = net()
        in_backward = gradclip.InBackward(model, "quantile:0.5,5", lambda p: setattr(p, "grad", None))
        with in_backward.measuring():
            loss_of(model, 0).backward()
        loss_of(model, 0).backward()
        before = in_backward.state_dict()
        with in_backward.measuring():
            loss_of(model, 2).backward()
        with (
            pytest.warns(RuntimeWarning, match="dropped the non-finite gradient of 'first.bias'"),
            pytest.warns(RuntimeWarning, match="other gradients than the one inside measuring"),
        ):
            poisoned(model, "first.bias", 2)
        after = in_backward.state_dict()
        assert torch.equal(before["threshold.window"], after["threshold.window"])
        assert (after["step"], after["skipped"]) == (2, 1)

    def test_a_step_counts_once_however_many_are_dropped(self):
        model = net()
        in_backward = gradclip.InBackward(model, "tensor_norm:1.0")
        with pytest.warns(RuntimeWarning, match="dropped") as told:
            (math.nan * loss_of(model, 0)).backward()
        assert len(told) == 1
        assert in_backward.result.skipped
        (math.nan * loss_of(model, 0)).backward()
        assert (in_backward.skipped, in_backward.skipped_in_a_row) == (2, 2)

    def test_too_many_in_a_row_raise(self):
        model = net()
        in_backward = gradclip.InBackward(model, gradclip.tensor_norm(1.0, nonfinite=gradclip.Skip(patience=3)))
        with pytest.warns(RuntimeWarning, match="dropped"):
            poisoned(model, "first.bias", 0)
        loss_of(model, 0).backward()
        assert (in_backward.result.finite, in_backward.skipped_in_a_row) == (True, 0)
        poisoned(model, "first.bias", 0)
        poisoned(model, "first.bias", 0)
        with pytest.raises(gradclip.NonFiniteGradientError, match=r"'first.bias' in 3 steps in a row"):
            poisoned(model, "first.bias", 0)
        assert in_backward.skipped == 4

    def test_raise_comes_before_then(self):
        model = net()
        stepped = []
        gradclip.InBackward(model, gradclip.tensor_norm(1.0, nonfinite="raise"), stepped.append)
        with pytest.raises(gradclip.NonFiniteGradientError, match=r"'first\.weight'$"):
            poisoned(model, "first.weight", 0)
        assert not any(p is model.first.weight for p in stepped)
        assert model.first.weight.grad.isnan().all()

    @pytest.mark.parametrize("two_passes", [False, True])
    def test_zero_and_propagate(self, two_passes):
        for policy, check in (("zero", lambda g: not g.any()), ("propagate", lambda g: g.isnan().all())):
            model = net()
            method = gradclip.global_norm if two_passes else gradclip.tensor_norm
            in_backward = gradclip.InBackward(model, method(0.1, nonfinite=policy))
            if two_passes:
                with in_backward.measuring():
                    poisoned(model, "second.weight", 0)
            poisoned(model, "second.weight", 0)
            assert check(model.second.weight.grad)
            if two_passes and policy == "propagate":  # as torch does: one NaN is everybody's
                assert model.out.weight.grad.isnan().all()
            else:
                assert model.out.weight.grad.isfinite().all()

    def test_two_passes_skip_the_whole_step(self):
        for clipping in ("global_norm:0.1", "agc:0.01", "spam:1.2,0.9,3"):
            model = net()
            in_backward = gradclip.InBackward(model, clipping, optimizers(model))
            loss_of(model, 2).backward() if clipping[0] != "g" else None
            before, saved = [p.clone() for p in model.parameters()], in_backward.state_dict()
            with in_backward.measuring():
                poisoned(model, "first.bias", 0)
            with pytest.warns(RuntimeWarning, match="dropped the non-finite gradient of 'first.bias'"):
                loss_of(model, 0).backward()
            assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
            assert in_backward.result.skipped
            assert in_backward.result.nonfinite_names == ("first.bias",)
            assert (bool(in_backward.result.finite), float(in_backward.result.clipped_norm)) == (False, 0.0)
            after = in_backward.state_dict()
            assert (after.pop("step"), after.pop("skipped"), after.pop("skipped_in_a_row")) == (saved["step"] + 1, 1, 1)
            assert all(torch.equal(v, saved[k]) for k, v in after.items() if k.startswith("threshold."))
            in_backward.detach()

    def test_two_passes_raise_before_anything_is_stepped(self):
        model = net()
        in_backward = gradclip.InBackward(model, gradclip.global_norm(1.0, nonfinite="raise"), optimizers(model))
        with pytest.raises(gradclip.NonFiniteGradientError, match=r"first\.bias"), in_backward.measuring():
            poisoned(model, "first.bias", 0)
        with pytest.raises(gradclip.TargetError, match="needs the norms"):
            loss_of(model, 0).backward()
