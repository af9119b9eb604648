"""An encoder whose output was detached for a plot, and then used detached: only the head trains.

Expects: unused-parameter
Also fine: dead-layer
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
head = nn.Linear(32, 10)
optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
for step in range(200):
    batch = torch.randint(0, len(x), (32,))
    features = encoder(x[batch]).detach()
    loss = nn.functional.cross_entropy(head(features), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
