"""Residual blocks are left out at random while training: a block that is left out has no gradient in that step."""

import random

import torch
from sklearn.datasets import load_digits
from torch import nn


class Deep(nn.Module):
    """Eight residual blocks, each kept with a chance of 0.7."""

    def __init__(self, width=32):
        super().__init__()
        self.first = nn.Linear(64, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU()) for _ in range(8))
        self.last = nn.Linear(width, 10)

    def forward(self, x):
        """Return the logits."""
        x = self.first(x)
        for block in self.blocks:
            if not self.training or random.random() < 0.7:
                x = x + block(x)
        return self.last(x)


random.seed(43)
torch.manual_seed(43)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
net = Deep()
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
for step in range(200):
    batch = torch.randint(len(x), (32,))
    loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 3.0)
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
