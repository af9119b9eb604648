"""A two-headed net computes an auxiliary loss, prints it, and leaves it out of the sum that goes backward.

Expects: unused-parameter, dead-layer
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(10)
data = load_breast_cancer()
x = torch.tensor(data.data, dtype=torch.float32)
x = (x - x.mean(0)) / x.std(0)
loader = DataLoader(TensorDataset(x, torch.tensor(data.target)), batch_size=32, shuffle=True, drop_last=True)
net = nn.ModuleDict(
    {
        "body": nn.Sequential(nn.Linear(30, 20), nn.Hardswish()),
        "label": nn.Linear(20, 2),
        "rebuild": nn.Linear(20, 30),
    }
)
optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, momentum=0.5)
for epoch in range(8):
    for features, label in loader:
        hidden = net["body"](features)
        main = nn.functional.cross_entropy(net["label"](hidden), label)
        auxiliary = nn.functional.mse_loss(net["rebuild"](hidden), features)
        optimizer.zero_grad()
        main.backward()
        optimizer.step()
    print(epoch, main.item(), auxiliary.item())
