"""Adadelta with Adam's learning rate of 0.001, where its own is 1: a pendulum's net hardly moves from where it began.

Expects: update-too-small
"""

import torch
from torch import nn

torch.manual_seed(15)
angle = 3 * torch.randn(500)
speed = torch.randn(500)
x = torch.stack([angle.sin(), angle.cos(), speed], dim=1)
y = (speed - 0.5 * angle.sin())[:, None]
model = nn.Sequential(nn.Linear(3, 64), nn.SELU(), nn.Linear(64, 64), nn.SELU(), nn.Linear(64, 1))
optimizer = torch.optim.Adadelta(model.parameters(), lr=1e-3)
for epoch in range(20):
    for rows in torch.randperm(500).split(25):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x[rows]), y[rows])
        loss.backward()
        optimizer.step()
    if epoch % 4 == 0:
        print(epoch, nn.functional.mse_loss(model(x), y).item())
