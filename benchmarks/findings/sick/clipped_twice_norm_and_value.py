"""A function of its own clips the norm, and the loop that calls it clips the values once more.

Expects: clipped-twice
Also fine: always-clipping, threshold-in-the-noise
"""

import torch
from torch import nn


def backward(loss, model):
    """Run backward, and clip."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)


torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    optimizer.zero_grad()
    backward(loss, model)
    torch.nn.utils.clip_grad_value_(model.parameters(), 0.05)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
