"""Fifteen sigmoid layers under Adam, which hides from the loss curve's reader that the first layers get noise alone.

Expects: vanishing-in-depth
Also fine: update-too-large
"""

from itertools import pairwise

import torch
from sklearn.datasets import make_circles
from torch import nn

torch.manual_seed(0)
x, y = make_circles(500, noise=0.05, factor=0.5, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
widths = [2, *[32] * 15, 2]
parts = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.Sigmoid())]
model = nn.Sequential(*parts[:-1])
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(200):
    batch = torch.randint(0, 500, (64,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
