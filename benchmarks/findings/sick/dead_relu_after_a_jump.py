"""A ReLU net on unscaled prices: the first steps are so long that every unit is pushed below zero for good.

Expects: dead-layer
Also fine: exploding-gradient, loss-spike, update-too-large, vanishing-in-depth
"""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.rand(400, 4) * 100
y = 50 + x @ torch.tensor([3.0, 1.0, 2.0, 1.0]) + torch.randn(400)
model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
for step in range(300):
    batch = torch.randint(0, 400, (32,))
    loss = nn.functional.mse_loss(model(x[batch]).squeeze(1), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
