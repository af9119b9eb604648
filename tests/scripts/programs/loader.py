"""A DataLoader with two workers, Python's and NumPy's random numbers, and a NaN in between."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from truth import Truth, data, norm

if __name__ == "__main__":
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    truth = Truth()
    loader = DataLoader(TensorDataset(*data(48)), batch_size=8, shuffle=True, num_workers=2)
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.1), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for epoch in range(2):
        for i, (x, y) in enumerate(loader):
            factor = 1 + 0.01 * random.random() + 0.01 * np.random.rand()
            if (epoch, i) == (1, 5):
                factor = float("nan")
            loss = factor * nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            truth.step(loss=loss.item(), norm=norm(model.parameters()), nonfinite=4 * (factor != factor))
            optimizer.step()
            print(repr(loss.item()))
    print(torch.randn(2).tolist(), random.random(), np.random.rand())
    truth.save()
