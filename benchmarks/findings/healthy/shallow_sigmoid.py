"""One hidden layer of sigmoids on two circles: nothing vanishes in a depth of two."""

import torch
from sklearn.datasets import make_circles
from torch import nn

torch.manual_seed(0)
x, y = make_circles(500, noise=0.05, factor=0.5, random_state=0)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 32), nn.Sigmoid(), nn.Linear(32, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
for step in range(300):
    batch = torch.randint(0, 500, (64,))
    loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(step, loss.item())
