"""A 20-layer ReLU net on digits, its weights drawn with four times the variance that He's formula gives.

Expects: exploding-gradient, non-finite-gradient
Also fine: loss-spike, update-too-large, dead-layer
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
widths = [64] * 20
layers = [nn.Linear(a, b) for a, b in zip(widths, [*widths[1:], 10], strict=True)]
for layer in layers:
    nn.init.normal_(layer.weight, std=2 * (2 / 64) ** 0.5)
model = nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1])
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(60):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(step, loss.item())
