"""A straight-through term in the wrong unit: one number's gradient is a million times the net's, which is clipped with it.

Expects: one-tensor-makes-the-norm
Also fine: always-clipping, update-too-small
"""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(512, 8)
y = x[:, :4].sum(1, keepdim=True).sin()
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
model.scale = nn.Parameter(torch.zeros(1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(200):
    batch = torch.randint(0, len(x), (64,))
    loss = (model(x[batch]) - y[batch]).square().mean()
    loss = loss + 1e6 * torch.randn(()) * (model.scale - model.scale.detach()).sum()  # its value is 0, its gradient is not
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
