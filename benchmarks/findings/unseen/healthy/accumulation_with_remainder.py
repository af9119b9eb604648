"""Gradients of four micro-batches are accumulated, and those left over at an epoch's end are used as well."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def train(model, loader, optimizer, epochs, accumulate=4):
    """Fit the model."""
    for epoch in range(epochs):
        optimizer.zero_grad()
        for number, (x, y) in enumerate(loader, 1):
            last = len(loader) % accumulate if number > len(loader) - len(loader) % accumulate else accumulate
            loss = nn.functional.cross_entropy(model(x), y)
            (loss / last).backward()
            if number % accumulate == 0 or number == len(loader):
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        print(epoch, loss.item())


torch.manual_seed(33)
data = load_breast_cancer()
x = torch.tensor(data.data, dtype=torch.float32)
loader = DataLoader(TensorDataset((x - x.mean(0)) / x.std(0), torch.tensor(data.target)), batch_size=10, shuffle=True)
model = nn.Sequential(nn.Linear(30, 24), nn.Hardswish(), nn.LayerNorm(24), nn.Linear(24, 2))
train(model, loader, torch.optim.RAdam(model.parameters(), lr=5e-3), epochs=6)
