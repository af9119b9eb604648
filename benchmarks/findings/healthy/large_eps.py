"""Adam with the same large eps, and a threshold that leaves gradients above it."""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(512, 8)
y = x[:, :4].sum(1, keepdim=True).sin()
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-3)
for step in range(300):
    batch = torch.randint(0, len(x), (64,))
    loss = (model(x[batch]) - y[batch]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
