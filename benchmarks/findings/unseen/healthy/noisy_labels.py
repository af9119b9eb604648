"""Four of ten labels are wrong: the loss stays high for ever, and the true accuracy is good."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(30)
digits = load_digits()
x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
noisy = torch.where(torch.rand(len(y)) < 0.4, torch.randint(10, (len(y),)), y)
model = nn.Linear(64, 10)
optimizer = torch.optim.ASGD(model.parameters(), lr=0.3, weight_decay=1e-3)
for epoch in range(8):
    for batch, label in DataLoader(TensorDataset(x, noisy), batch_size=50, shuffle=True):
        loss = nn.functional.cross_entropy(model(batch), label, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item(), (model(x).argmax(1) == y).float().mean().item())
