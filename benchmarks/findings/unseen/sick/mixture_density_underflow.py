"""A mixture density net that adds the densities up before it takes the logarithm: far from every centre they are all 0.

Expects: non-finite-gradient
"""

import torch
from torch import nn
from torch.distributions import Normal


class Mixture(nn.Module):
    """Weights, centres and widths of four normal distributions."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 24), nn.Tanh())
        self.out = nn.Linear(24, 12)

    def forward(self, x):
        """Return the mixture."""
        weight, centre, width = self.out(self.body(x)).chunk(3, dim=1)
        return weight.softmax(1), Normal(centre, width.exp(), validate_args=False)


torch.manual_seed(0)
model = Mixture()
optimizer = torch.optim.NAdam(model.parameters(), lr=0.01)
for step in range(200):
    y = 2 * torch.rand(64, 1) - 1
    x = y + 0.3 * torch.sin(6.28 * y)
    if step > 60:
        y = torch.where(torch.rand(64, 1) < 0.01, y + 30, y)
    weight, parts = model(x)
    loss = -(weight * parts.log_prob(y).exp()).sum(1).log().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
