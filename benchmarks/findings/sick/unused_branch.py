"""A model with an auxiliary branch that forward() forgets to call.

Expects: unused-parameter
Also fine: dead-layer
"""

import torch
from torch import nn


class Net(nn.Module):
    """A trunk with a branch beside it."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.branch = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32))
        self.out = nn.Linear(32, 1)

    def forward(self, x):
        """Return the prediction; should have been trunk + branch."""
        return self.out(self.trunk(x))


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(200):
    x = torch.randn(32, 6)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x.square().sum(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
