"""The optimizer is made, and then the model is built anew.

Expects: optimizer-without-gradients
"""

import torch
from torch import nn


def build():
    """A new net."""
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 1))


torch.manual_seed(0)
model = build()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model = build()
x = torch.randn(256, 6)
y = x.sum(1, keepdim=True).sin()
for _ in range(120):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    model.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
