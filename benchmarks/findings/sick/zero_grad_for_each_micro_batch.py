"""Four micro-batches make a step, but each of them resets the gradients first.

Expects: gradients-unused
"""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.randn(1024, 8)
y = x.sum(1, keepdim=True).sin()
for i in range(480):
    batch = torch.randint(0, len(x), (16,))
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x[batch]), y[batch]) / 4
    loss.backward()
    if (i + 1) % 4 == 0:
        optimizer.step()
print(loss.item())
