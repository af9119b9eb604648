"""Norms near 1 with outliers of 50 that throw the weights about, under a threshold of 500 that no outlier reaches.

Expects: never-clipping, exploding-gradient, loss-spike
Also fine: update-too-large
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(400):
    x = torch.randn(32, 10)
    y = (x @ truth).tanh()
    if step % 60 == 50:
        y[0] += 200
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 500.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
