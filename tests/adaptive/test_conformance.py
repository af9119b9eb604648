"""Each rule on real parameters, through what a user calls, does what the specification says, step after step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradclip
from gradclip.torch.targets import resolve
from tests import reference
from tests.conformance.following import EXACT, follow, give_gradients, made
from tests.support import assert_matches, numpy_of, present

SPELLINGS = [
    "zclip:1.5,0.9,5", "zclip:1.5,0.9,5,cap=2", "zclip:1.5,0.9,5,exclude=*.bias", "adagc:1.1,0.9,5,3",
    "adagc:1.1,0.9,5,3,exclude=gain", "aggc:1.2,0.5,0.9,patterns=*", "aggc:1.2,0.9,0.9,patterns=encoder.*|*", "spam:2,0.9,3",
    "spam:2,0.9,3,exclude=conv.*", "norm_growth:1.05", "norm_growth:1.05,0.5", "autoclip:50", "quantile:0.5,10",
    "quantile:0.7,10,per_tensor=true", "skip_step:1.5,10,4", "stable_spam:0.9,0.5,0.8", "stable_spam:0.5,exclude=*.bias",
    "aggc:cosine(1.5,1.1,10,5),linear(0.2,0.9,10,5),0.9,patterns=*",
    "aggc:linear(0.6,0.7,10,5),0,0.9,patterns=*,min_gain=0.9", "Chain('zclip:1.5,0.9,5', 'norm_growth:1.05')",
    "Chain('value:1.0', 'zclip:1.5,0.9,5', 'norm_growth:1.05')", "Chain('zclip:1.5,0.9,5', 'normalize:soft=2', 'value:0.5')",
]  # fmt: skip


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_clipper_follows_the_specification(spelling, dtype):
    clipped = follow(spelling, dtype, least=0.0101 if spelling.startswith("autoclip") else 0.0)
    assert 1 <= clipped < 25 or any(word in spelling for word in ("cap", "spam", "min_gain", "linear", "Chain"))
    assert clipped


@pytest.mark.parametrize("spelling", ["aggc:1.2,0.5,0.9", "Chain('value:1.0', 'zclip:1.5,0.9,5', 'norm_growth:1.05')"])
def test_attached_it_does_the_same(spelling):
    assert follow(spelling, torch.float32, attached=True)


class TestTrust:
    """``trust`` sees each param group's learning rate; a block that mixes several has the largest."""

    LRS = (0.1, 2.0)

    def optimizer(self, parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
        pairs = list(parameters.items())
        return torch.optim.SGD([{"params": pairs[:2], "lr": self.LRS[0]}, {"params": pairs[2:], "lr": self.LRS[1]}], lr=1)

    @pytest.mark.parametrize("dtype", EXACT, ids=str)
    @pytest.mark.parametrize("spelling", ["trust:0.02", "trust:0.3", "trust:0.05,per_tensor=true", "trust:0.05,exclude=gain"])
    def test_it_follows_the_specification(self, spelling, dtype):
        parameters = made(dtype)
        optimizer = self.optimizer(parameters)
        handle = gradclip.attach(optimizer, spelling, parameters=parameters)
        for step in range(8):
            give_gradients(parameters, step)
            rates = [self.LRS[entry.group or 0] for entry in resolve(parameters, optimizer).entries]
            there = {name: p for name, p in parameters.items() if p.grad is not None}
            lrs = [lr for lr, p in zip(rates, parameters.values(), strict=True) if p.grad is not None]
            grads, weights = ([numpy_of(t) for t in ts] for ts in ([p.grad for p in there.values()], there.values()))
            want = reference.clip(handle.clipper.clipping, grads, weights, entries=present(there)[0], lrs=lrs)
            optimizer.step()
            assert_matches(there, want, EXACT[dtype])
        handle.detach()

    def test_no_step_is_longer_than_a_share_of_the_weights(self):
        parameters = {"a": nn.Parameter(torch.full((4,), 3.0)), "b": nn.Parameter(torch.full((9,), 2.0))}
        optimizer = self.optimizer(parameters | {"c": nn.Parameter(torch.ones(5))})
        handle = gradclip.attach(optimizer, "trust:0.1", parameters=parameters)
        for _ in range(20):
            before = torch.cat([p.detach().clone() for p in parameters.values()])
            for p in parameters.values():
                p.grad = torch.randn_like(p) * 1e3
            optimizer.step()
            after = torch.cat([p.detach() for p in parameters.values()])
            assert (after - before).norm() <= 0.1 * before.norm() * (1 + 1e-5)
        handle.detach()

    def test_the_learning_rate_is_the_one_of_now(self):
        weight = nn.Parameter(torch.tensor([3.0, 4.0]))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        handle = gradclip.attach(optimizer, "trust:0.1")
        for lr in (1.0, 0.25, 0.0):
            optimizer.param_groups[0]["lr"] = lr
            weight.grad, weight.data = torch.tensor([30.0, 40.0]), torch.tensor([3.0, 4.0])
            optimizer.step()
            assert float(weight.grad.norm()) == pytest.approx(0.5 / lr if lr else 50.0)
        handle.detach()

    def test_weights_of_zero_can_move(self):
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        weight.grad = torch.tensor([3.0, 4.0])
        with gradclip.attach(optimizer, "trust:0.1,floor=0.01"):
            optimizer.step()
        assert float(weight.detach().norm()) == pytest.approx(0.001)

    def test_without_an_optimizer_it_says_so_before_anything_is_touched(self):
        parameters = made(torch.float32)
        give_gradients(parameters, 0)
        before = {name: None if p.grad is None else p.grad.clone() for name, p in parameters.items()}
        with pytest.raises(gradclip.TargetError, match=r"^trust needs the learning rate: use gradclip.attach"):
            gradclip.clip_(parameters, gradclip.trust())
        with pytest.raises(gradclip.TargetError, match="needs the learning rate"):
            gradclip.Clipper(parameters, gradclip.trust())
        grads = [p.grad for p in parameters.values() if p.grad is not None]
        with pytest.raises(gradclip.TargetError, match="needs"):
            gradclip.clip(grads, gradclip.trust())
        assert all(
            p.grad is None if was is None else torch.equal(p.grad, was)
            for p, was in zip(parameters.values(), before.values(), strict=True)
        )
