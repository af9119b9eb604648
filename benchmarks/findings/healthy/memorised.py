"""A net that has memorised its few rows: all are classified, and the gradients of most batches are next to nothing."""

import torch
from sklearn.datasets import make_blobs
from torch import nn

torch.manual_seed(0)
x, y = make_blobs(60, centers=3, cluster_std=0.6, random_state=2)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for step in range(400):
    batch = torch.randint(0, 60, (16,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
