"""A list of gradients is clipped instead of the parameters they belong to.

Expects: clip-without-effect
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x = torch.randn(512, 8)
y = (x[:, :2].prod(1, keepdim=True) + x.sum(1, keepdim=True)).tanh()
for _ in range(150):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.mse_loss(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    nn.utils.clip_grad_norm_(gradients, 0.5)
    optimizer.step()
print(loss.item())
