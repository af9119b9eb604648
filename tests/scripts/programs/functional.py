"""Weights that are new tensors at every step."""

import torch
from truth import Truth, data, norm

torch.manual_seed(1)
truth = Truth()
x, y = data()


def train(w, b):
    for _ in range(10):
        loss = (x @ w + b - y).pow(2).mean()
        loss.backward()
        truth.step(loss=loss.item(), norm=norm([w, b]))
        w = (w - 0.1 * w.grad).detach().requires_grad_()
        b = (b - 0.1 * b.grad).detach().requires_grad_()
        print(repr(loss.item()))


train(torch.zeros(3, 1, requires_grad=True), torch.zeros(1, requires_grad=True))
truth.save()
