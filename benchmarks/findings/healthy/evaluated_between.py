"""Training with an evaluation after every epoch, and the best weights kept, as real scripts have it."""

import copy

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
train, test = torch.randperm(len(x)).split([1400, len(x) - 1400])
model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
best, kept = 0.0, None
for epoch in range(5):
    model.train()
    for batch in train[torch.randperm(1400)].split(35):
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    if accuracy > best:
        best, kept = accuracy, copy.deepcopy(model.state_dict())
    print(epoch, loss.item(), accuracy)
