"""Features are computed under no_grad, left over from the evaluation code: only the head ever trains.

Expects: unused-parameter
Also fine: dead-layer
"""

import torch
from torch import nn


class Net(nn.Module):
    """An encoder and a head."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Linear(32, 16), nn.Tanh())
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        """Return the prediction."""
        with torch.no_grad():
            features = self.encoder(x)
        return self.head(features)


torch.manual_seed(0)
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(200):
    x = torch.randn(32, 10)
    loss = nn.functional.mse_loss(model(x).squeeze(1), x[:, 0] * x[:, 1])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 40 == 0:
        print(step, loss.item())
