"""Adam at a learning rate of 1, where 0.001 is usual: the first steps replace the weights, and the loss never recovers.

Expects: update-too-large
Also fine: loss-spike, exploding-gradient, dead-layer
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
model = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
