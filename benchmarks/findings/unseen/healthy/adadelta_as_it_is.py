"""Adadelta with its own learning rate of 1, on a deep and narrow net with tanh."""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(39)
data = load_breast_cancer()
x = torch.tensor(data.data, dtype=torch.float32)
loader = DataLoader(TensorDataset((x - x.mean(0)) / x.std(0), torch.tensor(data.target).float()), batch_size=32, shuffle=True)
model = nn.Sequential(
    nn.Linear(30, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1)
)
optimizer = torch.optim.Adadelta(model.parameters())
for epoch in range(12):
    for features, label in loader:
        loss = nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
