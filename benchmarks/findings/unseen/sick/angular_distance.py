"""Pairs are compared by the angle between their embeddings, and acos() has no slope at 1, where equal pairs are.

Expects: non-finite-gradient
"""

import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(3)
embed = nn.Sequential(nn.Linear(6, 32), nn.CELU(), nn.Linear(32, 5))
optimizer = torch.optim.Adagrad(embed.parameters(), lr=0.02)
for step in range(150):
    first = torch.randint(0, 4, (40, 6)).float()
    second = torch.randint(0, 4, (40, 6)).float()
    if step % 10 == 9:
        second[:2] = first[:2]
    same = (first.sum(1) - second.sum(1)).abs() < 2
    angle = torch.acos(functional.cosine_similarity(embed(first), embed(second)).clamp(-1, 1))
    loss = torch.where(same, angle.square(), functional.relu(1 - angle).square()).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(step, loss.item())
