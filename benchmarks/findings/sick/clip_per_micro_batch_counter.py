"""Gradient accumulation by a counter, as in many training scripts, with the clipping outside the `if`.

Expects: clip-per-micro-batch
Also fine: always-clipping, clipped-twice
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(12)
model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
accumulate = 8
for i in range(800):
    x = torch.randn(4, 12)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth) / accumulate
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if (i + 1) % accumulate == 0:
        optimizer.step()
        optimizer.zero_grad()
    if i % 100 == 0:
        print(i, accumulate * loss.item())
