"""Adagrad, whose steps shrink of themselves."""

import torch
from sklearn.datasets import make_moons
from torch import nn

torch.manual_seed(0)
x, y = make_moons(500, noise=0.15, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2))
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
for step in range(250):
    batch = torch.randint(0, 500, (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
