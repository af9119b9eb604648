"""A net with two heads, each loss behind a helper that resets the gradients of the whole net before it adds its own.

Expects: gradients-unused
Also fine: unused-parameter
"""

import torch
from torch import nn

torch.manual_seed(12)


class TwoHeads(nn.Module):
    """A trunk, and a head for each target."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(10, 32), nn.SiLU())
        self.kind, self.amount = nn.Linear(32, 3), nn.Linear(32, 1)

    def forward(self, x):
        """Both outputs."""
        hidden = self.trunk(x)
        return self.kind(hidden), self.amount(hidden)


def add_gradients(net, loss):
    """What every loss goes through."""
    net.zero_grad()
    loss.backward()


net = TwoHeads()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
true = torch.randn(10, 3)
for step in range(200):
    x = torch.randn(64, 10)
    kind, amount = net(x)
    add_gradients(net, nn.functional.mse_loss(amount, (x @ true[:, :1]).tanh()))
    kind, _ = net(x)
    add_gradients(net, nn.functional.cross_entropy(kind, (x @ true).argmax(1)))
    optimizer.step()
    if step % 50 == 0:
        print(step, nn.functional.cross_entropy(kind, (x @ true).argmax(1)).item())
