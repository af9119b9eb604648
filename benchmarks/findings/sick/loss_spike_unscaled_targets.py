"""A regression in which two shards of the data have targets in grams where all the others are in kilograms.

Expects: loss-spike, exploding-gradient
Also fine: update-too-large
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(400):
    x = torch.randn(32, 10)
    y = (x @ truth).tanh() + 0.05 * torch.randn(32)
    if step in (180, 300):
        y = 1000 * y
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
