"""A tanh net at a hundred times the learning rate that suits it: the loss jumps about and does not come down.

Expects: update-too-large, loss-spike
Also fine: exploding-gradient, dead-layer, vanishing-in-depth
"""

import torch
from sklearn.datasets import make_circles
from torch import nn

torch.manual_seed(0)
x, y = make_circles(500, noise=0.05, factor=0.5, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=20.0)
for step in range(200):
    batch = torch.randint(0, 500, (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
