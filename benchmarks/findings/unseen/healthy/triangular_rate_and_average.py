"""SGD under a triangular learning rate that goes up and down eight times, and a stochastic weight average at the end."""

import torch
from sklearn.datasets import make_moons
from torch import nn
from torch.optim.swa_utils import AveragedModel

torch.manual_seed(37)
x, y = make_moons(800, noise=0.2, random_state=2)
x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
model = nn.Sequential(nn.Linear(2, 48), nn.SELU(), nn.Linear(48, 48), nn.SELU(), nn.Linear(48, 2))
average = AveragedModel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CyclicLR(optimizer, base_lr=0.005, max_lr=0.15, step_size_up=25, cycle_momentum=False)
for step in range(400):
    rows = torch.randint(len(x), (40,))
    loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 50 == 49:
        average.update_parameters(model)
        print(step, loss.item(), (average(x).argmax(1) == y).float().mean().item())
