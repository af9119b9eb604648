"""InBackward: gradients clipped as they appear, against the same clipping after backward."""

from __future__ import annotations

import copy
import gc as memory
import re
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import gradclip
from gradclip.thresholds import Minimum, Trust, Typical
from tests.torch.early import (
    STEPS,
    afterwards,
    assert_same_results,
    assert_same_state,
    assert_same_weights,
    loss_of,
    net,
    optimizers,
    sgd,
)

EXACT = {
    "tensor_norm": gradclip.tensor_norm(0.05),
    "tensor_norm, L1": gradclip.tensor_norm(0.05, norm=1),
    "block_rms": gradclip.block_rms(0.01),
    "block_rms, exclude": gradclip.block_rms(0.01, exclude="out.*"),
    "agc": gradclip.agc(0.01),
    "value": gradclip.value(0.01),
    "value, asymmetric": gradclip.value(-0.01, 0.02),
    "normalize each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.Constant(0.1), gradclip.Normalize()),
    "soft each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.Constant(0.1), gradclip.Soft()),
    "drop each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.Constant(0.5), gradclip.Drop()),
    "quantile": gradclip.quantile(0.5, 5, per_tensor=True),
    "norm_growth": gradclip.norm_growth(1.001),
    "spam": gradclip.spam(1.2, 0.9, 3),
    "zclip each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.zclip(0.5, 0.9, 3).threshold),
    "autoclip each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.autoclip(20).threshold),
    "aggc each": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, gradclip.aggc(1.0).threshold, gradclip.Band()),
    "typical units": gradclip.Clipping(gradclip.PerUnit(), gradclip.L2, Typical(1.0, 4, 2)),
    "linear": gradclip.tensor_norm(gradclip.Linear(0.5, 0.01, 8)),
    "schedule": gradclip.tensor_norm(lambda step: 0.1 / (1 + step)),
    "exclude": gradclip.agc(0.01, exclude="out.*"),
    "exclude, with history": gradclip.quantile(0.5, 5, per_tensor=True, exclude=("out.*", "*.bias")),
    "exclude elements": gradclip.spam(1.2, 0.9, 3, exclude="out.*"),
    "trust": gradclip.trust(1e-3, per_tensor=True),
    "two rules": gradclip.Clipping(gradclip.PerTensor(), gradclip.L2, Minimum(Trust(2e-3), Typical(1.1, 4, 2))),
}


class TestTensorByTensor:
    @pytest.mark.parametrize("clipping", EXACT.values(), ids=EXACT)
    def test_is_what_a_clipper_does_afterwards(self, clipping):
        wanted, clipper, results = afterwards(clipping)
        model = net()
        in_backward = gradclip.InBackward(model, clipping, optimizers(model))
        for step in range(STEPS):
            loss_of(model, step).backward()
            assert all(p.grad is None for p in model.parameters())
            assert_same_results(in_backward.result, results[step])
        assert_same_weights(model, wanted)
        assert in_backward.step == STEPS
        assert any(bool(result.clipped) for result in results)
        if clipping is not EXACT["schedule"]:  # a lambda has no spelling
            assert_same_state(in_backward.state_dict(), clipper.state_dict())

    @pytest.mark.parametrize("name", ["agc", "quantile", "norm_growth", "spam", "linear", "exclude, with history"])
    def test_a_run_can_be_resumed_and_go_over_to_a_clipper(self, name):
        clipping = EXACT[name]
        wanted, clipper, _ = afterwards(clipping)
        model = net()
        first = gradclip.InBackward(model, clipping, by_step := optimizers(model))
        for step in range(5):
            loss_of(model, step).backward()
        saved = copy.deepcopy(first.state_dict())
        first.detach()
        second = gradclip.InBackward(model, clipping, by_step)
        second.load_state_dict(saved)
        for step in range(5, 9):
            loss_of(model, step).backward()
        saved = second.state_dict()
        second.detach()
        third = gradclip.Clipper(model, clipping)
        third.load_state_dict(saved)
        for step in range(9, STEPS):
            loss_of(model, step).backward()
            third.clip_()
            for optimizer in by_step.values():
                optimizer.step()
                optimizer.zero_grad()
        assert_same_weights(model, wanted)
        assert_same_state(third.state_dict(), clipper.state_dict())

    def test_a_loaded_count_of_steps_stays_though_the_next_gradients_are_dropped(self):
        model = net()
        in_backward = gradclip.InBackward(model, "spam:1.2,0.9,3", optimizers(model))
        loss_of(model, 0).backward()
        saved = copy.deepcopy(in_backward.state_dict())
        loss_of(model, 1).backward()
        in_backward.load_state_dict(saved)
        with pytest.warns(RuntimeWarning, match="dropped"):
            (float("nan") * loss_of(model, 0)).backward()
        assert int(in_backward.state_dict()["threshold.count"]) == int(saved["threshold.count"]) == 1

    def test_a_state_of_something_else_is_refused(self):
        saved = gradclip.InBackward(net(), "quantile:0.5,5,per_tensor=true").state_dict()
        assert saved.keys() == {"version", "recipe", "step", "skipped", "skipped_in_a_row"}
        other = gradclip.InBackward(net(), "quantile:0.5,6,per_tensor=true")
        with pytest.raises(gradclip.StateError, match="use that recipe"):
            other.load_state_dict(saved)
        model = nn.Linear(2, 2)
        small = gradclip.InBackward(model, "quantile:0.5,5,per_tensor=true")
        model(torch.ones(1, 2)).sum().backward()
        with pytest.raises(gradclip.StateError, match="was the model changed"):
            gradclip.InBackward(net(), "quantile:0.5,5,per_tensor=true").load_state_dict(small.state_dict())
        with pytest.raises(gradclip.StateError, match="'step'"):
            other.load_state_dict({"version": 1, "recipe": "agc:0.01"})

    def test_gradients_of_two_backwards_are_two_steps(self):
        model = nn.Linear(2, 1, bias=False)
        in_backward = gradclip.InBackward(model, "tensor_norm:1.0")
        for _ in range(2):  # nothing frees the gradient: the second time it is the sum, and clipped again
            (10 * model(torch.ones(1, 2))).sum().backward()
        assert in_backward.step == 2
        assert float(model.weight.grad.norm()) == pytest.approx(1.0)

    def test_each_backward_is_a_step_whatever_it_reaches(self):
        one, two = nn.Linear(2, 1), nn.Linear(2, 1)
        in_backward = gradclip.InBackward(nn.ModuleList([one, two]), "tensor_norm:1.0")
        one(torch.ones(1, 2)).sum().backward()
        two(torch.ones(1, 2)).sum().backward()
        assert in_backward.step == 2
        assert in_backward.result.tensor_norms.tolist()[:2] == [0.0, 0.0]
        assert in_backward.result is in_backward.result

    def test_where_nobody_tells_that_a_backward_is_over_the_next_gradient_does(self, monkeypatch):
        monkeypatch.setattr("gradclip.torch.in_backward.hooks._queue", None)
        model, wanted = net(), afterwards("norm_growth:1.001")[1].state_dict()
        in_backward = gradclip.InBackward(model, "norm_growth:1.001", optimizers(model))
        for step in range(STEPS):
            loss_of(model, step).backward()
            assert in_backward.step == step + 1
        assert_same_state(in_backward.state_dict(), wanted)

    def test_a_parameter_without_elements_takes_no_part(self):
        for empty_first in (False, True):
            weight, empty = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0))
            in_backward = gradclip.InBackward([empty, weight], "spam:1.2,0.9,2")
            for _ in range(3):
                sum(p.sum() for p in ((empty, weight) if empty_first else (weight, empty))).backward()
            state = in_backward.state_dict()
            own = "threshold.rms.1"
            assert (state["threshold.count"].tolist(), state[own].shape) == ([3.0], (3,))
            assert {key for key, value in state.items() if key.startswith("threshold.rms") and value.numel()} == {own}

    def test_half_precision_sparse_and_complex_gradients(self):
        model = nn.ModuleDict({"e": nn.Embedding(5, 3, sparse=True), "h": nn.Linear(3, 2, dtype=torch.bfloat16)})
        turned = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        gradclip.InBackward({**dict(model.named_parameters()), "c": turned}, "tensor_norm:0.5")
        h = model["h"](model["e"](torch.tensor([1, 1, 2])).bfloat16()).float()
        (100 * h.sum() * (turned * (1 + 2j)).abs().sum()).backward()
        for parameter in (*model.parameters(), turned):
            grad = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
            assert float(grad.abs().double().norm()) == pytest.approx(0.5, rel=5e-3)


class TestHooks:
    def test_one_that_comes_later_runs_after_clipping(self):
        model = nn.Linear(3, 1, bias=False)
        gradclip.InBackward(model, "tensor_norm:1.0")
        seen = []
        model.weight.register_post_accumulate_grad_hook(lambda p: seen.append(float(p.grad.norm())))
        (100 * model(torch.ones(1, 3))).sum().backward()
        assert seen == pytest.approx([1.0])

    def test_one_that_came_earlier_and_freed_the_gradient_is_found_out(self):
        model = nn.Linear(3, 1, bias=False)
        model.weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
        gradclip.InBackward(model, "tensor_norm:1.0")
        with pytest.raises(gradclip.TargetError, match=r"'weight' was freed before it could be clipped"):
            model(torch.ones(1, 3)).sum().backward()

    def test_a_result_read_while_stepping_is_that_of_the_last_step(self):
        model = nn.Linear(3, 1)
        seen = []
        in_backward = gradclip.InBackward(model, "tensor_norm:1.0", lambda p: seen.append(in_backward.result))
        for _ in range(2):
            model(torch.ones(1, 3)).sum().backward()
        assert seen[:2] == [None, None]
        assert seen[2] is seen[3] is not None
        assert in_backward.step == 2

    def test_a_frozen_parameter_takes_part_once_it_is_thawed(self):
        model = net()
        gradclip.InBackward(model, "tensor_norm:1e-3")
        loss_of(model, 0).backward()
        assert model.frozen.weight.grad is None
        assert not model.frozen.weight.requires_grad
        model.frozen.requires_grad_(True)
        loss_of(model, 0).backward()
        assert float(model.frozen.weight.grad.norm()) == pytest.approx(1e-3)

    def test_detach(self):
        model = net()
        with gradclip.InBackward(model, "tensor_norm:1e-3", optimizers(model)) as in_backward:
            assert "tensor_norm" in repr(in_backward)
        in_backward.detach()
        loss_of(model, 0).backward()
        assert float(model.out.weight.grad.norm()) > 1e-2
        gradclip.InBackward(model, "agc")

    def test_twice_is_refused(self):
        model = net()
        gradclip.InBackward(model, "agc:0.01")
        with pytest.raises(ValueError, match="call detach"):
            gradclip.InBackward(model, "agc:0.01")

    def test_it_works_on_where_nobody_keeps_it_and_goes_when_it_is_detached(self):
        model = nn.Linear(3, 1, bias=False)
        there = weakref.ref(gradclip.InBackward(model, "tensor_norm:1.0"))
        memory.collect()
        (100 * model(torch.ones(1, 3))).sum().backward()
        assert float(model.weight.grad.norm()) == pytest.approx(1.0)
        there().detach()
        memory.collect()
        assert there() is None

    def test_checkpointed_segments_are_one_step(self):
        from torch.utils.checkpoint import checkpoint

        first, second = nn.Linear(3, 3), nn.Linear(3, 3)
        for reentrant in (True, False):
            in_backward = gradclip.InBackward(
                nn.ModuleList([first, second]), gradclip.tensor_norm(gradclip.Linear(1.0, 0.1, 3))
            )
            for _ in range(3):
                x = torch.ones(2, 3, requires_grad=True)
                for layer in (first, second):
                    x = checkpoint(layer, x, use_reentrant=reentrant)
                (100 * x.sum()).backward()
            assert in_backward.step == 3
            assert in_backward.result.clipped_tensor_norms.tolist() == pytest.approx([0.4] * 4)
            in_backward.detach()


class TestWhatIsRefused:
    def test_then(self):
        model = net()
        with pytest.raises(TypeError, match=r"not SGD: write \{p: torch.optim.SGD"):
            gradclip.InBackward(model, "agc", sgd(model.parameters()))
        by_step = optimizers(model)
        by_step.pop(model.out.bias)
        with pytest.raises(gradclip.TargetError, match=r"no optimizer for 'out\.bias'"):
            gradclip.InBackward(model, "agc", by_step)
        gradclip.InBackward(model, "agc", optimizers(model))  # what was refused has left nothing behind
        model.frozen.requires_grad_(True)
        with pytest.raises(gradclip.TargetError, match="thawed has no optimizer"):
            loss_of(model, 0).backward()

    def test_methods_and_targets(self):
        wrapped = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
        with pytest.raises(gradclip.TargetError, match="DistributedDataParallel averages"):
            gradclip.InBackward(wrapped, "agc")
        with pytest.raises(gradclip.TargetError, match="needs the learning rates"):
            gradclip.InBackward(net(), "trust:0.02,per_tensor=true")
        for chain in (gradclip.Chain("value:0.5", "global_norm:1.0"), gradclip.stable_spam()):
            with pytest.raises(gradclip.TargetError, match=r"is two methods.*gradclip\.attach\(optimizer, .*gradclip\.Clipper"):
                gradclip.InBackward(net(), chain)
        with pytest.raises(gradclip.TargetError, match="matches no parameter"):
            gradclip.InBackward(net(), gradclip.agc(exclude="nowhere.*"))
        x = torch.ones(2, requires_grad=True) * 2
        x.retain_grad()
        with pytest.raises(gradclip.TargetError, match="computed from other tensors"):
            gradclip.InBackward({"x": x}, "agc")


def test_the_manual_runs_as_written(capsys):
    text = (Path(__file__).parents[2] / "docs" / "low-memory.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    known: dict[str, object] = {}
    for block in blocks:
        exec(block, known)
    assert len(blocks) == 2
    assert capsys.readouterr().out.count("norm") == 3
    assert known["in_backward"].step == 3
    assert float(known["in_backward"].result.clipped_norm) <= 1 + 1e-6
