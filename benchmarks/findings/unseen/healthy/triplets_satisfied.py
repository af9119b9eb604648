"""Triplets with a margin: once all of a batch keep it, the loss and every gradient are exactly 0."""

import torch
from sklearn.datasets import load_iris
from torch import nn

torch.manual_seed(42)
iris = load_iris()
x, y = torch.tensor(iris.data[:100], dtype=torch.float32), torch.tensor(iris.target[:100])
x = x - x.mean(0)
embed = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 3))
optimizer = torch.optim.SGD(embed.parameters(), lr=0.05)
criterion = nn.TripletMarginLoss(margin=1.0)
for step in range(200):
    anchor = torch.randint(100, (16,))
    other = torch.randint(50, (16,))
    near, far = 50 * y[anchor] + other, 50 * (1 - y[anchor]) + other
    loss = criterion(embed(x[anchor]), embed(x[near]), embed(x[far]))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        print(step, loss.item())
