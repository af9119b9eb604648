"""A deep stack whose blocks are gated by scalars that start at 0: in the first step nothing inside a block has a gradient."""

import torch
from sklearn.datasets import load_wine
from torch import nn


class Gated(nn.Module):
    """x + gate * f(x)."""

    def __init__(self, width):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x):
        """Return the gated sum."""
        return x + self.gate * self.inner(x)


torch.manual_seed(49)
wine = load_wine()
x, y = torch.tensor(wine.data, dtype=torch.float32), torch.tensor(wine.target)
x = (x - x.mean(0)) / x.std(0)
net = nn.Sequential(nn.Linear(13, 20), *[Gated(20) for _ in range(10)], nn.Linear(20, 3))
optimizer = torch.optim.Adagrad(net.parameters(), lr=0.02)
for step in range(150):
    batch = torch.randint(len(x), (24,))
    loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
