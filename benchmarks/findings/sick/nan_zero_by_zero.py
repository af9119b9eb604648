"""Rows are brought to unit length by hand; one row of the data is all zeros, and 0 / 0 is NaN.

Expects: non-finite-gradient
"""

import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(500, 6).relu()
x[77] = 0
y = (x[:, 0] > x[:, 1]).float()
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _epoch in range(3):
    for rows in range(0, 500, 10):
        batch = x[rows : rows + 10]
        batch = batch / batch.norm(dim=1, keepdim=True)
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch).squeeze(1), y[rows : rows + 10])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(loss.item())
