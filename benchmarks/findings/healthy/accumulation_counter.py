"""Gradient accumulation by a counter, with clipping, step and zero_grad() all inside the `if`, and a shorter last step."""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(12)
model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
accumulate, batches = 8, 803
for i in range(batches):
    x = torch.randn(4, 12)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth) / accumulate
    loss.backward()
    if (i + 1) % accumulate == 0 or i + 1 == batches:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        optimizer.zero_grad()
    if i % 100 == 0:
        print(i, accumulate * loss.item())
