"""Twelve tanh layers with weights drawn at 0.03, as old tutorials have it: signal and gradient shrink in every layer.

Expects: vanishing-in-depth
Also fine: update-too-small
"""

from itertools import pairwise

import torch
from sklearn.datasets import make_moons
from torch import nn

torch.manual_seed(0)
x, y = make_moons(500, noise=0.1, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
widths = [2, *[32] * 12, 2]
layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
for layer in layers:
    nn.init.normal_(layer.weight, std=0.03)
    nn.init.zeros_(layer.bias)
model = nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.Tanh())], layers[-1])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(200):
    batch = torch.randint(0, 500, (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
