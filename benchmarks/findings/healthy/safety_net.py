"""Clipping at 10 as a safety net that ordinary steps never reach, and a rare long one does."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(400):
    x = torch.randn(32, 10)
    y = (x @ truth).tanh()
    if step % 130 == 100:
        y[0] += 80
    loss = nn.functional.mse_loss(model(x).squeeze(1), y)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
