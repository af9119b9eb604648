"""A linear model whose step is too long: without clipping the loss grows until it is no number."""

import sys

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
x = torch.randn(64, 3)
for _ in range(60):
    loss = (model(x) - x.sum(1, keepdim=True)).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("trained", *sys.argv[1:])
