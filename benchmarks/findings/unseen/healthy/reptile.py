"""Reptile on sines: each task has a copy of the net and an SGD of its own, and the net is moved towards the copy by hand."""

from copy import deepcopy

import torch
from torch import nn

torch.manual_seed(45)
meta = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
for task in range(80):
    shift, height = 3 * torch.rand(1), 0.5 + torch.rand(1)
    learner = deepcopy(meta)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.03)
    for _ in range(6):
        x = 6 * torch.rand(20, 1) - 3
        loss = nn.functional.mse_loss(learner(x), height * torch.sin(x + shift))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        for weight, learnt in zip(meta.parameters(), learner.parameters(), strict=True):
            weight.lerp_(learnt, 0.2)
    if task % 10 == 0:
        print(task, loss.item())
