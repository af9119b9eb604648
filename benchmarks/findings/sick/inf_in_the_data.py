"""A table with one Inf in it, as a division by zero in a spreadsheet leaves; the net is clipped, which does not help.

Expects: non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(400, 8)
y = x[:, :2].sum(1)
x[333, 5] = float("inf")
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(5):
    for batch in torch.randperm(400).split(20):
        loss = nn.functional.mse_loss(model(x[batch]).squeeze(1), y[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    print(epoch, loss.item())
