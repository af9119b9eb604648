"""An RNN of rectifiers that starts at the identity adds two marked numbers of 50, with momentum and without clipping.

Expects: exploding-gradient
Also fine: loss-spike, non-finite-gradient, update-too-large, dead-layer
"""

import torch
from torch import nn


class Adder(nn.Module):
    """The identity RNN."""

    def __init__(self, size=40):
        super().__init__()
        self.cell = nn.RNN(2, size, nonlinearity="relu", batch_first=True)
        self.out = nn.Linear(size, 1)
        with torch.no_grad():
            self.cell.weight_hh_l0.copy_(torch.eye(size))

    def forward(self, x):
        """Return the sum it believes in."""
        return self.out(self.cell(x)[0][:, -1]).squeeze(1)


torch.manual_seed(1)
model = Adder()
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
for step in range(120):
    numbers, marks = torch.rand(20, 50), torch.zeros(20, 50)
    marks[torch.arange(20), torch.randint(0, 25, (20,))] = 1
    marks[torch.arange(20), torch.randint(25, 50, (20,))] = 1
    loss = nn.functional.mse_loss(model(torch.stack([numbers, marks], dim=2)), (numbers * marks).sum(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item(), model.cell.weight_hh_l0.grad.norm().item())
