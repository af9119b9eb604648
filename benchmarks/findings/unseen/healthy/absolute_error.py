"""The sum of absolute errors in double precision under Rprop on the whole data, whose gradients barely shrink."""

import torch
from sklearn.datasets import load_linnerud
from torch import nn

torch.manual_seed(51)
data = load_linnerud()
x, y = torch.tensor(data.data), torch.tensor(data.target)
x, y = (x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0)
model = nn.Sequential(nn.Linear(3, 12), nn.Sigmoid(), nn.Linear(12, 3)).double()
optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
for step in range(150):
    loss = (model(x) - y).abs().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        print(step, loss.item())
