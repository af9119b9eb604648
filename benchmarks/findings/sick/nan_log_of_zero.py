"""Binary cross entropy written by hand as -log(p): a mislabelled point far from the border has a p of exactly 0.

Expects: non-finite-gradient
"""

import torch
from sklearn.datasets import make_blobs
from torch import nn

torch.manual_seed(0)
x, y = make_blobs(300, centers=[[-3, 0], [3, 0]], cluster_std=1.0, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
x[17], y[17] = torch.tensor([60.0, 0.0]), 0.0
model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(200):
    batch = torch.randperm(300)[:16]
    p = model(x[batch]).squeeze(1).sigmoid()
    loss = -(y[batch] * p.log() + (1 - y[batch]) * (1 - p).log()).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
