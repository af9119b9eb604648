"""A trainer accumulates five micro-batches, with a remainder at the end of an epoch, and clips after each backward().

Expects: clip-per-micro-batch
"""

import torch
from sklearn.datasets import load_wine
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Trainer:
    """Fit a classifier with gradient accumulation."""

    def __init__(self, model, loader, accumulate):
        self.model, self.loader, self.accumulate = model, loader, accumulate
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8)

    def fit(self, epochs):
        """Train for so many epochs."""
        for epoch in range(epochs):
            for number, (x, y) in enumerate(self.loader, 1):
                loss = nn.functional.cross_entropy(self.model(x), y)
                (loss / self.accumulate).backward()
                nn.utils.clip_grad_norm_(self.model.parameters(), 0.05)
                if number % self.accumulate == 0 or number == len(self.loader):
                    self.optimizer.step()
                    self.optimizer.zero_grad()
            print(epoch, loss.item())


torch.manual_seed(2)
wine = load_wine()
x = torch.tensor(wine.data, dtype=torch.float32)
data = TensorDataset((x - x.mean(0)) / x.std(0), torch.tensor(wine.target))
model = nn.Sequential(nn.Linear(13, 26), nn.LeakyReLU(), nn.Linear(26, 3))
Trainer(model, DataLoader(data, batch_size=8, shuffle=True), accumulate=5).fit(25)
