"""Says how it ends by its exit code."""

import sys

import torch
from torch import nn
from truth import Truth, data, norm

torch.manual_seed(0)
truth = Truth()
model = nn.Linear(3, 1)
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
for _ in range(3):
    x, y = data()
    loss = (model(x) - y).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    truth.step(loss=loss.item(), norm=norm(model.parameters()))
    optimizer.step()
    print(repr(loss.item()))
truth.save()
sys.exit(3)
