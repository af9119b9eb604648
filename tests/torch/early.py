"""A model, its losses, and the usual loop that clipping inside backward is compared with."""

from __future__ import annotations

import math

import torch
from torch import nn

import gradclip

STEPS = 12


class Net(nn.Module):
    """A tied matrix, biases, a frozen weight, and a head that only some steps use."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied.weight = self.second.weight
        self.rare, self.frozen = nn.Linear(6, 1), nn.Linear(6, 6)
        self.frozen.requires_grad_(False)

    def forward(self, x, rare):
        h = torch.tanh(self.tied(torch.tanh(self.frozen(self.second(torch.tanh(self.first(x)))))))
        return self.rare(h).square().mean() if rare else (self.out(h) - 1).square().mean()


def net() -> Net:
    torch.manual_seed(3)
    return Net()


def loss_of(model, step):
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return (1 + 5 * (step % 4 == 3)) * model(x, rare=step % 3 == 1)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.5)


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01)


def optimizers(model, make=sgd):
    return {p: make([p]) for p in model.parameters() if p.requires_grad}


def afterwards(clipping, make=sgd, steps=STEPS):
    """The usual loop: backward, then clip, then step; the weights and the results."""
    model = net()
    optimizer = make(model.parameters())
    clipper = gradclip.Clipper(model, clipping, optimizer=optimizer)
    results = []
    for step in range(steps):
        loss_of(model, step).backward()
        results.append(clipper.clip_())
        optimizer.step()
        optimizer.zero_grad()
    return model, clipper, results


def assert_same_weights(one, other, rtol=1e-6, atol=1e-7):
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def assert_same_results(one, other):
    assert one.names == other.names
    for name in ("norm", "clipped_norm", "coefficient", "tensor_norms", "clipped_tensor_norms"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-9, check_dtype=False)
    assert bool(one.clipped) == bool(other.clipped)
    assert bool(one.finite) == bool(other.finite)


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for key, value in other.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(one[key], value, rtol=1e-5, atol=1e-10)
        else:
            assert one[key] == value


def poisoned(model, where, step):
    """A loss whose gradient has a NaN in one parameter alone."""
    parameter = dict(model.named_parameters())[where]
    hook = parameter.register_hook(lambda grad: grad * math.nan)
    loss_of(model, step).backward()
    hook.remove()
