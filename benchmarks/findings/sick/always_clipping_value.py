"""clip_grad_value_ at 1e-4, where the gradient's elements are a hundred times that: only their signs are left.

Expects: always-clipping
Also fine: update-too-small
"""

import torch
from torch import nn

torch.manual_seed(0)
truth = torch.randn(10)
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(250):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x @ truth)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), 1e-4)
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
