"""Accumulation gone wrong: zero_grad() runs for every micro-batch and step() for every fourth, so three of four are lost.

Expects: backward-without-step
Also fine: gradients-unused
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for i in range(400):
    batch = torch.randint(0, len(x), (16,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    if i % 4 == 3:
        optimizer.step()
    if i % 80 == 0:
        print(i, loss.item())
