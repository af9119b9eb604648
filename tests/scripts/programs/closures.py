"""LBFGS and SGD, each with a closure; the one of SGD clips by value."""

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
x, y = data()
model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def fit(optimizer, number, bound=None):
    evaluations = []

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        columns = {"loss": loss.item(), "norm": norm(model.parameters())}
        if bound is not None:
            nn.utils.clip_grad_value_(model.parameters(), clip_value=bound)
            columns |= {"clipped_norm": norm(model.parameters()), "threshold": bound, "clipped": True}
        evaluations.append(columns)
        return loss

    for _ in range(4):
        evaluations.clear()
        loss = optimizer.step(closure)
        truth.step(number, **evaluations[0])
        print(repr(loss.item()), len(evaluations))


fit(torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=6), 0)
fit(torch.optim.SGD(model.parameters(), lr=0.01), 1, bound=0.001)
truth.save()
