"""Noise with heavy tails: now and then a batch whose gradient is ten times the usual, under Adam and clipping at 1."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
tails = torch.distributions.StudentT(1.5)
for step in range(400):
    x = torch.randn(32, 10)
    target = (x @ truth).tanh() + 0.05 * tails.sample((32,))
    loss = nn.functional.mse_loss(model(x).squeeze(1), target)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
