"""A one-dimensional residual convolution under bfloat16 autocast, which needs no loss scaling."""

import math

import torch
from torch import nn


class Residual(nn.Module):
    """A convolution beside the identity."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)
        self.conv = nn.Conv1d(channels, channels, 5, padding=2)

    def forward(self, x):
        """Return the input and what was found in it."""
        return x + self.conv(nn.functional.silu(self.norm(x)))


torch.manual_seed(34)
net = nn.Sequential(
    nn.Conv1d(1, 8, 5, padding=2), Residual(8), Residual(8), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(32, 2)
)
optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
time = torch.linspace(0, 1, 32)
for step in range(120):
    label = torch.randint(2, (24,))
    wave = torch.sin(2 * math.pi * ((3 + 3 * label[:, None]) * time + torch.rand(24, 1)))
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(net(wave[:, None] + 0.3 * torch.randn(24, 1, 32)), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
