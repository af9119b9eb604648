"""A one-dimensional convolution in mixed precision: the scaler has its default scale, and unscale_() was forgotten.

Expects: clip-before-unscale
Also fine: always-clipping, update-too-small
"""

import math

import torch
from torch import nn
from torch.amp import GradScaler


def waves(count):
    """Return noisy sines, and which of three frequencies each has."""
    label = torch.randint(3, (count,))
    time = torch.linspace(0, 1, 48)
    angle = 2 * math.pi * (2 + 3 * label[:, None]) * time + 6.28 * torch.rand(count, 1)
    return (angle.sin() + 0.3 * torch.randn(count, 48)).unsqueeze(1), label


torch.manual_seed(8)
net = nn.Sequential(
    nn.Conv1d(1, 8, 7, stride=2),
    nn.SiLU(),
    nn.Conv1d(8, 16, 5, stride=2),
    nn.SiLU(),
    nn.AdaptiveAvgPool1d(1),
    nn.Flatten(),
    nn.Linear(16, 3),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
scaler = GradScaler("cpu")
for step in range(120):
    inputs, label = waves(32)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(net(inputs), label)
    scaler.scale(loss).backward()
    nn.utils.clip_grad_norm_(net.parameters(), max_norm=2.0)
    scaler.step(optimizer)
    scaler.update()
    if step % 20 == 0:
        print(step, float(loss))
