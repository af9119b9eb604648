"""A dense net on blobs with exponential activations: each layer's output is the exponent of the next.

Expects: exploding-gradient, non-finite-gradient
Also fine: loss-spike, update-too-large, dead-layer
"""

import torch
from sklearn.datasets import make_blobs
from torch import nn


class Exponential(nn.Module):
    """The activation x -> exp(x)."""

    def forward(self, x):
        """Return it."""
        return x.exp()


torch.manual_seed(0)
x, y = make_blobs(400, centers=3, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 16), Exponential(), nn.Linear(16, 16), Exponential(), nn.Linear(16, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(100):
    batch = torch.randint(0, 400, (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
