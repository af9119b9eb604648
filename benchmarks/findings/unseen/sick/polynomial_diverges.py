"""A polynomial of degree 8 fitted with Nesterov momentum: the rate is above what the steepest direction bears.

Expects: exploding-gradient
Also fine: non-finite-gradient, update-too-large, loss-spike
"""

import torch
from torch import nn


class Polynomial(nn.Module):
    """Coefficients for each power."""

    def __init__(self, degree):
        super().__init__()
        self.coefficients = nn.ParameterList([nn.Parameter(torch.zeros(1)) for _ in range(degree + 1)])

    def forward(self, x):
        """Return the value at x."""
        return sum(c * x**power for power, c in enumerate(self.coefficients))


torch.manual_seed(0)
x = 3 * torch.rand(500) - 1.5
y = torch.sin(3 * x) + 0.1 * torch.randn(500)
model = Polynomial(8)
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5, nesterov=True)
for step in range(150):
    rows = torch.randint(500, (100,))
    loss = (model(x[rows]) - y[rows]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item(), model.coefficients[-1].grad.item())
