"""Regression with gross outliers in one row of a hundred; a threshold of 4 keeps them from the weights."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(8)
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
for step in range(400):
    x = torch.randn(16, 8)
    y = x @ truth + 0.3 * torch.randn(16)
    y = torch.where(torch.rand(16) < 0.01, y + 60 * torch.randn(16), y)
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 4.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
