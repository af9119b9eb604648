"""Contrastive learning with two noisy views and a temperature of 0.1."""

import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.nn import functional

torch.manual_seed(21)
x = torch.tensor(load_wine().data, dtype=torch.float32)
x = (x - x.mean(0)) / x.std(0)
encoder = nn.Sequential(nn.Linear(13, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 16))
optimizer = torch.optim.NAdam(encoder.parameters(), lr=2e-3)


def info_nce(first, second, temperature=0.1):
    """Return how badly each view finds its other among the batch."""
    alike = functional.normalize(first, dim=1) @ functional.normalize(second, dim=1).T / temperature
    wanted = torch.arange(len(alike))
    return (functional.cross_entropy(alike, wanted) + functional.cross_entropy(alike.T, wanted)) / 2


for step in range(200):
    batch = x[torch.randperm(len(x))[:48]]
    loss = info_nce(encoder(batch + 0.3 * torch.randn_like(batch)), encoder(batch + 0.3 * torch.randn_like(batch)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(step, loss.item())
