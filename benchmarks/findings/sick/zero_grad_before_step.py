"""zero_grad() has slipped between backward() and step(): every step is taken with no gradients at all.

Expects: zero-grad-before-step
Also fine: backward-without-step, unused-parameter, dead-layer, update-too-small
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
