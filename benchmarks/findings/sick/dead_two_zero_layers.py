"""Two layers in a row were initialised with zeros, so neither ever gets a gradient through the other.

Expects: dead-layer
Also fine: vanishing-in-depth, update-too-small
"""

import torch
from sklearn.datasets import make_moons
from torch import nn

torch.manual_seed(0)
x, y = make_moons(400, noise=0.1, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
for layer in (model[2], model[4]):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(200):
    batch = torch.randint(0, 400, (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
